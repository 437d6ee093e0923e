// How a step's budget of tokens, and of rows of logits, is split.
#include <algorithm>

#include "sched/scheduler.h"

namespace foe {

// Decoding sequences get their token first, and prompts the rest, in order. But an owner gets more than an even part of
// it only where others leave some: all wait for the one with the most to run. What decoding sequences leave to prompts,
// even if they would fill the budget, is a quarter of it and one row; the first in order is never left out.
void Scheduler::deal_tokens() {
  budget_ = {.tokens = limits_.max_tokens, .rows = limits_.max_sampled};
  if (running_.empty()) return;
  Budget kept = {.tokens = std::max(1, limits_.max_tokens / 4), .rows = 1};
  if (decoding()) kept = {};
  // By index: those behind may be preempted, and leave running_.
  for (int i = 0; i < num_running(); ++i)
    if (running_[i]->decoding() && (i == 0 || (budget_.tokens > kept.tokens && budget_.rows > kept.rows)))
      deal(*running_[i], 1);
  std::vector<int> part(limits_.owners, (budget_.tokens + limits_.owners - 1) / limits_.owners);
  for (int i = 0; i < num_running(); ++i) {
    Sequence& sequence = *running_[i];
    if (!sequence.decoding()) part[sequence.owner] -= deal(sequence, part[sequence.owner]);
  }
  for (int i = 0; i < num_running(); ++i) deal(*running_[i], budget_.tokens);
}

// At most `most` more tokens of the sequence. Where all rows of a prompt are wanted, it gets half of those that are
// left: prompts behind it want their last one.
int Scheduler::deal(Sequence& s, int most) {
  const int begin = s.done + s.scheduled;
  if (begin == s.total()) return 0;
  const int rows = s.collects_prompt ? (budget_.rows + 1) / 2 : budget_.rows;
  int end = begin + std::min({s.total() - begin, most, budget_.tokens});
  end = std::min(end, std::max(begin, s.first_wanted()) + rows);
  if (s.collects_prompt && s.done < s.first_wanted()) end = std::min(end, s.first_wanted());  // all rows, or none
  if (end > begin) end = provide_blocks(s, end);
  if (end <= begin) return 0;
  s.scheduled += end - begin;
  budget_.tokens -= end - begin;
  budget_.rows -= s.rows_before(end) - s.rows_before(begin);
  return end - begin;
}

// How far the sequence gets, at most to `end`, with the blocks that are free, and those of sequences behind it.
int Scheduler::provide_blocks(Sequence& s, int end) {
  BlockPool& pool = pools_[s.owner];
  while (static_cast<int>(s.blocks.size()) < blocks_for(end)) {
    while (pool.available() == 0)
      if (!preempt_behind(s)) return static_cast<int>(s.blocks.size()) * kKvBlock;
    s.blocks.push_back(pool.allocate());
  }
  return end;
}

// Preempts the last sequence of the same owner, if it is not this one.
bool Scheduler::preempt_behind(const Sequence& sequence) {
  for (auto it = running_.rbegin(); *it != &sequence; ++it)
    if ((*it)->owner == sequence.owner) {
      preempt(**it);
      return true;
    }
  return false;
}

}  // namespace foe
