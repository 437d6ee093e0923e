// Splits a step's budget, of tokens and of rows of logits, among the running sequences.
#include <algorithm>

#include "sched/scheduler.h"

namespace foe {

// Decoding sequences get their one token first. Then prompts (and all else that has several tokens to run) get chunks
// of what is left, in the order of running_. Unless all sequences decode and no request waits, decoding sequences leave
// a quarter of the tokens and one row of logits to the others; only the first sequence in the order gets its token in
// any case. The rest is first dealt in even parts to the owners, because all ranks wait for the owner with the most
// tokens; a second round deals what some owners did not use.
void Scheduler::deal_tokens(int lane) {
  budget_ = {.tokens = limits_.max_tokens, .rows = limits_.max_sampled};
  if (running_.empty()) return;
  Budget kept = {.tokens = std::max(1, limits_.max_tokens / 4), .rows = 1};
  if (decoding()) kept = {};
  // Uses an index, because deal() may preempt sequences behind the current one, which removes them from running_.
  const auto each = [&](const auto& f) {
    for (int i = 0; i < num_running(); ++i)
      if (lane_of(*running_[i]) == lane) f(*running_[i]);
  };
  bool first = true;
  each([&](Sequence& s) {
    if (s.decoding() && (first || (budget_.tokens > kept.tokens && budget_.rows > kept.rows))) deal(s, 1);
    first = false;
  });
  std::vector<int> part(limits_.owners, (budget_.tokens + limits_.owners - 1) / limits_.owners);
  each([&](Sequence& s) {
    int& left = part[s.owner % limits_.owners];
    if (!s.decoding()) left -= deal(s, left);
  });
  each([&](Sequence& s) { deal(s, budget_.tokens); });
  if (limits_.max_draft > 0) draft(lane);
}

// Schedules at most `most` more tokens of the sequence, as far as the budget and the KV blocks reach, and returns how
// many. A prompt whose logprobs were asked for wants a row of logits for every token. It gets at most half of the rows
// that are left, so that prompts behind it can have the one row that each of them needs. States need no rows of logits.
int Scheduler::deal(Sequence& s, int most) {
  const int begin = s.done + s.scheduled;
  if (begin == s.total()) return 0;
  const int rows = s.collects_prompt ? (budget_.rows + 1) / 2 : budget_.rows;
  int end = begin + std::min({s.total() - begin, most, budget_.tokens});
  if (!s.request.pools()) end = std::min(end, std::max(begin, s.first_wanted()) + rows);
  if (s.wants_many() && s.done < s.first_wanted()) end = std::min(end, s.first_wanted());  // all rows wanted, or none
  if (end > begin) end = provide_blocks(s, end);
  if (end <= begin) return 0;
  s.scheduled += end - begin;
  budget_.tokens -= end - begin;
  budget_.rows -= s.scored_before(end) - s.scored_before(begin);
  return end - begin;
}

// Gives the sequence KV blocks for the positions before `end`, and returns how many positions it has blocks for, at
// most `end`. If no block is free, it preempts sequences of the same owner behind this one, the last one first.
int Scheduler::provide_blocks(Sequence& s, int end) {
  BlockPool& pool = pools_[s.owner];
  while (static_cast<int>(s.blocks.size()) < blocks_for(end)) {
    while (pool.available() == 0)
      if (!preempt_behind(s)) return static_cast<int>(s.blocks.size()) * kKvBlock;
    s.blocks.push_back(pool.allocate());
  }
  return end;
}

// Preempts the last running sequence of the same owner. Returns false if that is `sequence` itself.
bool Scheduler::preempt_behind(const Sequence& sequence) {
  for (auto it = running_.rbegin(); *it != &sequence; ++it)
    if ((*it)->owner == sequence.owner) {
      preempt(**it);
      return true;
    }
  return false;
}

// Guesses next tokens of decoding sequences, which run with the one before them. Guesses get what is left of the step's
// budget and of the KV blocks, and take nothing from any sequence.
void Scheduler::draft(int lane) {
  for (Sequence* s : running_) {
    if (lane_of(*s) != lane || s->scheduled != 1 || !s->decoding() || s->collects_prompt) continue;
    const int most = s->draft_length.next(room_for_draft(*s));
    if (most <= 0) continue;
    const std::vector<std::int32_t> guess = guess_next(s->tokens, most, s->request.stop_ids);
    const int drafted = static_cast<int>(guess.size());
    if (drafted == 0) continue;
    provide_blocks(*s, s->total() + drafted);
    s->tokens.insert(s->tokens.end(), guess.begin(), guess.end());
    s->drafted = drafted;
    s->scheduled += drafted;
    budget_.tokens -= drafted;
    budget_.rows -= drafted;
    ++stats_.drafts;
    stats_.drafted_tokens += drafted;
  }
}

// Returns how many tokens may be guessed for a sequence. The last token of an output never runs.
int Scheduler::room_for_draft(const Sequence& s) const {
  const int outputs = static_cast<int>(s.request.output.size());
  const int blocks = static_cast<int>(s.blocks.size()) + pools_[s.owner].available();
  const std::int64_t positions = std::int64_t{blocks} * kKvBlock - s.total();
  return static_cast<int>(std::min<std::int64_t>(
      {limits_.max_draft, budget_.tokens, budget_.rows, s.request.max_tokens - outputs - 1, positions}));
}

}  // namespace foe
