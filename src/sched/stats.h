// What the scheduler counts, for metrics.
#pragma once

#include <cstdint>

namespace foe {

struct SchedulerStats {
  // Since the start:
  std::int64_t preemptions = 0;
  std::int64_t prefix_queries = 0;     // tokens that were looked up in the prefix cache
  std::int64_t prefix_hits = 0;        // those of them that were found
  std::int64_t prompt_tokens = 0;      // in the prompts of the requests that were admitted
  std::int64_t generation_tokens = 0;  // output tokens, without those that requests came with
  std::int64_t tokens_run = 0;         // tokens of all steps: the rows of their batches
  std::int64_t drafts = 0;             // how often tokens were guessed
  std::int64_t drafted_tokens = 0;     // output tokens that were guessed (draft.h)
  std::int64_t accepted_tokens = 0;    // those of them that the model chose, too
  // Now:
  int running = 0;
  int waiting = 0;
  int blocks = 0;  // KV blocks of all owners
  int blocks_in_use = 0;
};

}  // namespace foe
