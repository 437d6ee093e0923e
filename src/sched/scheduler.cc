#include "sched/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace foe {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  FOE_CHECK(limits.max_tokens >= 1 && limits.max_sequences >= 1 && limits.owners >= 1 &&
                limits.max_sampled >= limits.max_sequences,
            "{} tokens, {} sequences, {} owners, {} rows", limits.max_tokens, limits.max_sequences, limits.owners,
            limits.max_sampled);
  allocators_.assign(limits.owners, BlockAllocator(limits.kv_blocks));
}

// The last output token is never fed back, so it needs no position; a request for none still runs its prompt.
int Scheduler::blocks_for(const Request& request) const {
  const std::int64_t positions = static_cast<std::int64_t>(request.prompt.size()) + std::max(request.max_tokens, 1) - 1;
  return static_cast<int>((positions + kKvBlock - 1) / kKvBlock);
}

void Scheduler::add(Request request) {
  if (request.prompt.empty()) fail("prompt: expected at least one token, got none");
  if (request.max_tokens < 1) fail("max_tokens: expected at least 1, got {}", request.max_tokens);
  if (static_cast<int>(request.output.size()) >= request.max_tokens)
    fail("expected fewer than max_tokens = {} output tokens to continue from, got {}", request.max_tokens,
         request.output.size());
  const std::int64_t positions = static_cast<std::int64_t>(request.prompt.size()) + request.max_tokens;
  if (positions > limits_.max_positions)
    fail(
        "this model's maximum context length is {} tokens, but {} were requested ({} in the prompt, {} for the answer)",
        limits_.max_positions, positions, request.prompt.size(), request.max_tokens);
  if (blocks_for(request) > limits_.kv_blocks)
    fail("the KV cache holds {} tokens, but {} were requested ({} in the prompt, {} for the answer)",
         limits_.kv_blocks * kKvBlock, positions, request.prompt.size(), request.max_tokens);
  waiting_.push_back(std::move(request));
}

void Scheduler::abort(std::int64_t id) {
  std::erase_if(waiting_, [id](const Request& r) { return r.id == id; });
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if (it->request.id != id) continue;
    allocators_[it->owner].release(it->blocks);
    running_.erase(it);
    return;
  }
}

void Scheduler::admit() {
  while (!waiting_.empty() && num_running() < limits_.max_sequences) {
    // The owner with the most free blocks has the least work ahead: a sequence holds blocks for all it may become.
    const auto freest = std::max_element(
        allocators_.begin(), allocators_.end(),
        [](const BlockAllocator& a, const BlockAllocator& b) { return a.available() < b.available(); });
    const int blocks = blocks_for(waiting_.front());
    if (blocks > freest->available()) return;
    running_.push_back({.request = std::move(waiting_.front()),
                        .owner = static_cast<int>(freest - allocators_.begin()),
                        .blocks = freest->allocate(blocks)});
    waiting_.pop_front();
  }
}

// Splits the step's budget. Decoding sequences get their token first; the rest is for prompts, in order of arrival. But
// an owner gets more than an even part of it only where others leave some: all wait for the one with the most to run.
void Scheduler::deal_tokens(const std::vector<Sequence*>& order) {
  int left = limits_.max_tokens;
  int rows = limits_.max_sampled - num_running();  // of logits, besides one for each sequence
  const auto deal = [&left, &rows](Sequence& sequence, int most) {
    int count = std::min({sequence.remaining() - sequence.scheduled, most, left});
    if (sequence.samples_all()) {
      count = std::min(count, sequence.scheduled == 0 ? rows + 1 : rows);
      rows -= std::max(0, sequence.scheduled == 0 ? count - 1 : count);
    }
    sequence.scheduled += count;
    left -= count;
    return count;
  };
  for (Sequence* sequence : order) sequence->scheduled = 0;
  for (Sequence* sequence : order)
    if (sequence->decoding()) deal(*sequence, 1);
  std::vector<int> part(limits_.owners, (left + limits_.owners - 1) / limits_.owners);
  for (Sequence* sequence : order) part[sequence->owner] -= deal(*sequence, part[sequence->owner]);
  for (Sequence* sequence : order) deal(*sequence, left);
}

// Puts the tokens that the sequence was dealt into the batch.
void Scheduler::append(Sequence& sequence) {
  std::vector<std::int32_t> tokens;
  const auto& prompt = sequence.request.prompt;
  const int end = sequence.done + sequence.scheduled;
  for (int i = sequence.done; i < end; ++i)
    tokens.push_back(i < static_cast<int>(prompt.size()) ? prompt[i] : sequence.request.output[i - prompt.size()]);
  const bool last = end == sequence.total();
  const int blocks = (end + kKvBlock - 1) / kKvBlock;
  batch_.add_sequence(tokens, sequence.done, {sequence.blocks.data(), static_cast<std::size_t>(blocks)},
                      sequence.samples_all() ? Batch::Sample::kAll
                      : last                 ? Batch::Sample::kLast
                                             : Batch::Sample::kNone,
                      sequence.owner);
  for (int i = sequence.samples_all() ? sequence.done : end - last; i < end; ++i) sampled_.push_back({&sequence, i});
}

const Batch& Scheduler::next() {
  admit();
  batch_.clear();
  sampled_.clear();
  std::vector<Sequence*> order;  // decoding sequences, then prompts, each in order of arrival
  for (const bool decoding : {true, false})
    for (Sequence& sequence : running_)
      if (sequence.decoding() == decoding) order.push_back(&sequence);
  deal_tokens(order);
  std::stable_sort(order.begin(), order.end(),
                   [](const Sequence* a, const Sequence* b) { return a->owner < b->owner; });
  for (Sequence* sequence : order)
    if (sequence->scheduled > 0) append(*sequence);
  return batch_;
}

Scheduler::SampledRow Scheduler::sampled(int i) const {
  return {&sampled_[i].sequence->request, sampled_[i].position};
}

std::vector<TokenEvent> Scheduler::commit(std::span<const SampledToken> tokens) {
  FOE_CHECK(tokens.size() == sampled_.size(), "{} tokens for {} rows", tokens.size(), sampled_.size());
  for (Sequence& sequence : running_) sequence.done += std::exchange(sequence.scheduled, 0);
  std::vector<TokenEvent> events;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Sequence& sequence = *sampled_[i].sequence;
    Request& request = sequence.request;
    if (sampled_[i].position + 1 < static_cast<int>(request.prompt.size())) {
      sequence.prompt_logprobs.push_back(tokens[i].logprobs.value());
      continue;
    }
    const std::int32_t token = tokens[i].token;
    request.output.push_back(token);
    TokenEvent event{.id = request.id, .token = token, .logprobs = tokens[i].logprobs};
    event.prompt = std::move(sequence.prompt_logprobs);
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end())
      event.finish = FinishReason::kStop;
    else if (static_cast<int>(request.output.size()) == request.max_tokens)
      event.finish = FinishReason::kLength;
    events.push_back(std::move(event));
  }
  for (const TokenEvent& event : events)
    if (event.finish) abort(event.id);
  batch_.clear();
  sampled_.clear();
  return events;
}

}  // namespace foe
