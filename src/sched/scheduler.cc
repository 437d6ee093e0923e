#include "sched/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace foe {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  FOE_CHECK(limits.max_tokens >= 1 && limits.max_sequences >= 1 && limits.owners >= 1,
            "{} tokens, {} sequences, {} owners", limits.max_tokens, limits.max_sequences, limits.owners);
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
  const auto deal = [&left](Sequence& sequence, int most) {
    const int count = std::min({sequence.remaining() - sequence.scheduled, most, left});
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
void Scheduler::append(const Sequence& sequence) {
  std::vector<std::int32_t> tokens;
  const auto& prompt = sequence.request.prompt;
  const int end = sequence.done + sequence.scheduled;
  for (int i = sequence.done; i < end; ++i)
    tokens.push_back(i < static_cast<int>(prompt.size()) ? prompt[i] : sequence.request.output[i - prompt.size()]);
  const bool last = end == sequence.total();
  const int blocks = (end + kKvBlock - 1) / kKvBlock;
  batch_.add_sequence(tokens, sequence.done, {sequence.blocks.data(), static_cast<std::size_t>(blocks)},
                      last ? Batch::Sample::kLast : Batch::Sample::kNone, sequence.owner);
  if (last) sampled_ids_.push_back(sequence.request.id);
}

const Batch& Scheduler::next() {
  admit();
  batch_.clear();
  sampled_ids_.clear();
  std::vector<Sequence*> order;  // decoding sequences, then prompts, each in order of arrival
  for (const bool decoding : {true, false})
    for (Sequence& sequence : running_)
      if (sequence.decoding() == decoding) order.push_back(&sequence);
  deal_tokens(order);
  std::stable_sort(order.begin(), order.end(),
                   [](const Sequence* a, const Sequence* b) { return a->owner < b->owner; });
  for (const Sequence* sequence : order)
    if (sequence->scheduled > 0) append(*sequence);
  return batch_;
}

Scheduler::SampledRow Scheduler::sampled(int i) const {
  for (const Sequence& sequence : running_)
    if (sequence.request.id == sampled_ids_[i])
      return {sequence.request.id, &sequence.request.sampling, static_cast<int>(sequence.request.output.size())};
  FOE_CHECK(false, "request {} was aborted while its batch ran", sampled_ids_[i]);
}

std::vector<TokenEvent> Scheduler::commit(std::span<const std::int32_t> tokens) {
  FOE_CHECK(tokens.size() == sampled_ids_.size(), "{} tokens for {} rows", tokens.size(), sampled_ids_.size());
  std::vector<TokenEvent> events;
  for (Sequence& sequence : running_) {
    sequence.done += std::exchange(sequence.scheduled, 0);
    const auto row = std::find(sampled_ids_.begin(), sampled_ids_.end(), sequence.request.id);
    if (row == sampled_ids_.end()) continue;
    Request& request = sequence.request;
    const std::int32_t token = tokens[row - sampled_ids_.begin()];
    request.output.push_back(token);
    TokenEvent event{request.id, token, {}};
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end())
      event.finish = FinishReason::kStop;
    else if (static_cast<int>(request.output.size()) == request.max_tokens)
      event.finish = FinishReason::kLength;
    events.push_back(event);
  }
  for (const TokenEvent& event : events)
    if (event.finish) abort(event.id);
  batch_.clear();
  sampled_ids_.clear();
  return events;
}

}  // namespace foe
