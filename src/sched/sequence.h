// A request on its way through the scheduler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "core/request.h"
#include "sched/block_pool.h"
#include "sched/draft.h"

namespace foe {

// Returns how many KV blocks so many positions need.
inline int blocks_for(std::int64_t positions) {
  return static_cast<int>((positions + kKvBlock - 1) / kKvBlock);
}

struct Sequence {
  // The fields that each step reads of all sequences come first, so that they share cache lines.
  std::vector<std::int32_t>
      tokens;       // prompt, output and, while a batch is planned or runs, what is guessed of the rest
  int drafted = 0;  // how many of the last tokens are guessed
  std::vector<std::int32_t> blocks;  // its KV blocks; this and the next four are valid while it runs
  int owner = 0;                     // of all lanes: the lane's first one is lane * SchedulerLimits::owners
  int published = 0;                 // how many of its first blocks BlockPool::find() can find
  int done = 0;                      // positions whose keys and values are in the cache
  int scheduled = 0;                 // how many of its tokens the current batch has
  bool ended = false;                // it has finished or was aborted; the current batch may still have its rows
  bool collects_prompt = false;      // whether logprobs of the prompt are still collected
  std::vector<LogprobEntry> prompt_logprobs;
  int pooled = 0;  // how many of the first positions' states are in the mean that the request wants

  std::int64_t turn = 0;             // lower values are served first (served_before)
  std::int64_t arrival = 0;          // decides among equal turns
  std::optional<int> cached_tokens;  // prompt tokens found in the cache when it was first admitted
  DraftLength draft_length;
  Request request;

  // Of the prompt and the output.
  int total() const { return static_cast<int>(tokens.size()) - drafted; }
  int remaining() const { return total() - done; }
  bool decoding() const { return remaining() == 1; }
  // Whether more positions' rows are wanted than the last one's.
  bool wants_many() const { return collects_prompt || request.pooling == Pooling::kMean; }
  // The first position whose logits or states are wanted; those of all later positions are wanted, too. Positions
  // before it need not run if their keys and values are cached.
  int first_wanted() const {
    if (request.pooling == Pooling::kMean) return pooled;
    if (!collects_prompt) return total() - 1;
    return request.sampling.prompt_logprobs_from - 1 + static_cast<int>(prompt_logprobs.size());
  }
  // Returns how many rows are wanted among the positions before `end`, and how many of them are rows of logits.
  int rows_before(int end) const { return std::max(0, end - first_wanted()); }
  int scored_before(int end) const { return request.pools() ? 0 : rows_before(end); }
  // What comes before one of its blocks.
  BlockPool::Parent parent_of(int block) const {
    return block > 0 ? blocks[block - 1] : BlockPool::start(request.cache_salt);
  }
  BlockPool::Tokens block_tokens(int block) const {
    return BlockPool::Tokens(tokens.data() + static_cast<std::ptrdiff_t>(block) * kKvBlock, kKvBlock);
  }
  // Returns how many positions it can need. The last output token is never fed back, so it needs none.
  std::int64_t max_positions() const {
    return static_cast<std::int64_t>(request.prompt.size()) + std::max(request.max_tokens, 1) - 1;
  }
};

// Whether a is served before b. The order is fixed when requests arrive, but `turn` counts later arrivals by the steps
// that have run, so that time spent waiting makes up for priority.
inline bool served_before(const Sequence& a, const Sequence& b) {
  return std::tie(a.turn, a.arrival) < std::tie(b.turn, b.arrival);
}

}  // namespace foe
