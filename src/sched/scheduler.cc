#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace foe {

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits) {
  if (limits_.max_sampled == 0) limits_.max_sampled = limits.max_sequences;
  FOE_CHECK(limits_.max_tokens >= 1 && limits_.max_sequences >= 1 && limits_.owners >= 1 && limits_.max_sampled >= 1,
            "{} tokens, {} sequences, {} owners, {} rows", limits_.max_tokens, limits_.max_sequences, limits_.owners,
            limits_.max_sampled);
  FOE_CHECK(limits_.aging_steps >= 1, "{} steps", limits_.aging_steps);
  FOE_CHECK(limits_.lanes >= 1, "{} lanes", limits_.lanes);
  pools_.assign(limits_.owners * limits_.lanes, BlockPool(limits_.kv_blocks));
  lanes_.resize(limits_.lanes);
}

void Scheduler::add(Request request) {
  if (request.prompt.empty()) fail("prompt: expected at least one token, got none");
  const int least = request.pools() ? 0 : 1;
  if (request.max_tokens < least) fail("max_tokens: expected at least {}, got {}", least, request.max_tokens);
  if (!request.pools() && request.output.size() >= static_cast<std::size_t>(request.max_tokens))
    fail("expected fewer than max_tokens = {} output tokens to continue from, got {}", request.max_tokens,
         request.output.size());
  const std::int64_t positions = static_cast<std::int64_t>(request.prompt.size()) + request.max_tokens;
  if (positions > limits_.max_positions)
    fail(
        "this model's maximum context length is {} tokens, but {} were requested ({} in the prompt, {} for the answer)",
        limits_.max_positions, positions, request.prompt.size(), request.max_tokens);
  auto sequence = std::make_unique<Sequence>();
  sequence->turn =
      std::int64_t{std::clamp(request.priority, -kMaxPriority, kMaxPriority)} * limits_.aging_steps + steps_;
  sequence->arrival = arrivals_++;
  sequence->tokens = request.prompt.tokens();
  sequence->tokens.insert(sequence->tokens.end(), request.output.begin(), request.output.end());
  sequence->collects_prompt = request.sampling.prompt_logprobs >= 0 && request.output.empty();
  sequence->request = std::move(request);
  const Request& r = sequence->request;
  if (blocks_for(sequence->max_positions()) > limits_.kv_blocks)
    fail("the KV cache holds {} tokens (--kv-tokens), but {} were requested ({} in the prompt, {} for the answer)",
         limits_.kv_blocks * kKvBlock, positions, r.prompt.size(), r.max_tokens);
  const auto [it, added] = sequences_.try_emplace(r.id, std::move(sequence));
  if (!added) fail("id: expected a new request, but request {} is here already", r.id);
  waiting_.insert(it->second.get());
}

void Scheduler::stop_running(Sequence& sequence) {
  pools_[sequence.owner].release(sequence.blocks);
  sequence.blocks.clear();
  sequence.published = sequence.done = 0;
}

void Scheduler::preempt(Sequence& sequence) {
  const int end = sequence.done + sequence.scheduled;
  budget_.rows += sequence.scored_before(end);
  budget_.tokens += std::exchange(sequence.scheduled, 0);
  stop_running(sequence);
  std::erase(running_, &sequence);
  waiting_.insert(&sequence);
  ++stats_.preemptions;
}

void Scheduler::abort(std::int64_t id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  Sequence& sequence = *it->second;
  if (waiting_.erase(&sequence) == 0) {
    stop_running(sequence);
    std::erase(running_, &sequence);
  }
  sequence.ended = true;
  if (sequence.scheduled > 0) lanes_[lane_of(sequence)].ended.push_back(std::move(it->second));
  sequences_.erase(it);
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.running = num_running();
  stats.waiting = num_waiting();
  for (const BlockPool& pool : pools_) {
    stats.blocks += pool.total();
    stats.blocks_in_use += pool.in_use();
  }
  return stats;
}

bool Scheduler::decoding() const {
  return waiting_.empty() &&
         std::all_of(running_.begin(), running_.end(), [](const Sequence* s) { return s->decoding(); });
}

ScheduledStep Scheduler::next(int lane) {
  drop_plan(lane);
  started_.clear();
  ++steps_;
  admit();
  deal_tokens(lane);
  ScheduledStep step = make_step(lane);
  if (limits_.check_each_step) check();
  return step;
}

void Scheduler::drop_plan(int lane) {
  for (Sequence* sequence : running_) {
    if (lane_of(*sequence) != lane) continue;
    sequence->scheduled = 0;
    keep_drafted(*sequence, 0);
  }
  lanes_[lane] = {};
}

// The blocks of a lane follow those of the lanes before it.
ScheduledStep Scheduler::make_step(int lane) {
  ScheduledStep step;
  std::vector<Row>& sampled = lanes_[lane].rows;
  std::vector<std::int32_t> ids;
  for (int owner = 0; owner < limits_.owners; ++owner)
    for (Sequence* s : running_) {
      if (s->owner != lane * limits_.owners + owner || s->scheduled == 0) continue;
      const int end = s->done + s->scheduled, rows = s->rows_before(end);
      const auto sample = rows == 0              ? Batch::Sample::kNone
                          : rows == s->scheduled ? Batch::Sample::kAll
                                                 : Batch::Sample::kLast;
      ids.assign(s->blocks.begin(), s->blocks.begin() + blocks_for(end));
      for (std::int32_t& id : ids) id += lane * limits_.kv_blocks;
      step.batch.add_sequence(std::span(s->tokens).subspan(s->done, s->scheduled), s->done, ids, sample, owner,
                              is_long(*s) ? static_cast<int>(s->request.prompt.size()) : 0);
      if (s->request.route) step.batch.route_last_sequence(s->request.route->route);
      step.sequences.push_back(s->request.id);
      for (int position = end - rows; position < end; ++position) sampled.push_back({s, position});
    }
  for (const Row& row : sampled)
    step.rows.push_back({&row.sequence->request, std::span(row.sequence->tokens).first(row.position + 1)});
  return step;
}

std::vector<TokenEvent> Scheduler::commit(std::span<const SampledToken> tokens, int lane) {
  const std::vector<Row>& rows = lanes_[lane].rows;
  FOE_CHECK(tokens.size() == rows.size(), "{} tokens for {} rows", tokens.size(), rows.size());
  settle_drafts(tokens, rows);
  for (Sequence* sequence : running_) {
    if (lane_of(*sequence) != lane) continue;
    stats_.tokens_run += sequence->scheduled;
    sequence->done += std::exchange(sequence->scheduled, 0);
    publish(*sequence);
  }
  std::vector<TokenEvent> events;
  events.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Sequence& sequence = *rows[i].sequence;
    if (sequence.ended || rows[i].position >= sequence.done) continue;  // aborted, or a guess that was wrong
    take(sequence, rows[i].position, tokens[i], events);
  }
  std::erase_if(running_, [](const Sequence* s) { return s->ended; });
  for (const TokenEvent& event : events)
    if (event.finish) sequences_.erase(event.id);
  lanes_[lane] = {};
  if (limits_.check_each_step) check();
  return events;
}

// Keeps of each guess what the model has chosen, too: the tokens before the first other one.
void Scheduler::settle_drafts(std::span<const SampledToken> tokens, std::span<const Row> rows) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Sequence& s = *rows[i].sequence;
    if (s.drafted == 0 || s.ended) continue;
    const int next = rows[i].position + 1, end = s.total() + s.drafted;
    if (next < end && tokens[i].token == s.tokens[next]) continue;
    const int accepted = next - s.total();
    s.scheduled -= s.drafted - accepted;
    s.draft_length.learn(s.drafted, accepted);
    stats_.accepted_tokens += accepted;
    keep_drafted(s, accepted);
  }
}

// Ends a guess: its first `accepted` tokens are from now on part of the text. What they do not need of the KV blocks,
// one more token included, is given back.
void Scheduler::keep_drafted(Sequence& s, int accepted) {
  if (s.drafted == 0) return;
  s.tokens.resize(s.total() + accepted);
  s.drafted = 0;
  const auto kept = std::min<std::size_t>(s.blocks.size(), blocks_for(s.total() + 1));
  pools_[s.owner].release(std::span(s.blocks).subspan(kept));
  s.blocks.resize(kept);
}

// Lets other sequences find the blocks that have become full.
void Scheduler::publish(Sequence& s) {
  if (!shares_blocks(s)) return;
  for (; (s.published + 1) * kKvBlock <= s.done; ++s.published) {
    std::int32_t& block = s.blocks[s.published];
    block = pools_[s.owner].publish(block, s.parent_of(s.published), s.block_tokens(s.published));
  }
}

void Scheduler::retire(Sequence& s) {
  stop_running(s);
  s.ended = true;
}

void Scheduler::take_state(Sequence& s, int position, const SampledToken& pooled, std::vector<TokenEvent>& events) {
  s.pooled = position + 1;
  if (s.pooled < s.total()) return;
  events.push_back(
      {.id = s.request.id, .finish = FinishReason::kStop, .cached_tokens = *s.cached_tokens, .state = pooled.state});
  retire(s);
}

void Scheduler::take(Sequence& s, int position, const SampledToken& sampled, std::vector<TokenEvent>& events) {
  Request& request = s.request;
  if (request.pools()) return take_state(s, position, sampled, events);
  if (position + 1 < static_cast<int>(request.prompt.size())) {
    FOE_CHECK(sampled.token == request.prompt[position + 1], "token {} at position {} of a prompt that has {} there",
              sampled.token, position + 1, request.prompt[position + 1]);
    s.prompt_logprobs.push_back(sampled.logprobs.value_or(LogprobEntry{}));
    return;
  }
  const int before = static_cast<int>(request.output.size());
  request.output.push_back(sampled.token);
  if (position + 1 == s.total()) s.tokens.push_back(sampled.token);  // it is there already if it was guessed
  ++stats_.generation_tokens;
  TokenEvent& event = events.emplace_back();
  event.id = request.id;
  event.token = sampled.token;
  event.cached_tokens = *s.cached_tokens;
  event.logprobs = sampled.logprobs;
  if (std::exchange(s.collects_prompt, false)) event.prompt = std::move(s.prompt_logprobs);
  const auto& stops = request.stop_ids;
  // A constraint that allows nothing else ends the text before min_tokens.
  const bool may_end = before >= request.sampling.min_tokens || request.constraint.kind != Constraint::Kind::kNone;
  if (may_end && std::find(stops.begin(), stops.end(), sampled.token) != stops.end())
    event.finish = FinishReason::kStop;
  else if (before + 1 == request.max_tokens)
    event.finish = FinishReason::kLength;
  if (event.finish) retire(s);
}

}  // namespace foe
