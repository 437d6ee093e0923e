// A request on its way through the scheduler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "core/request.h"
#include "sched/block_pool.h"

namespace foe {

// Blocks for so many positions.
inline int blocks_for(std::int64_t positions) {
  return static_cast<int>((positions + kKvBlock - 1) / kKvBlock);
}

struct Sequence {
  // What each step looks at, of all sequences, stands together.
  std::vector<std::int32_t> tokens;  // of prompt and output
  std::vector<std::int32_t> blocks;  // while it runs, as the next four
  int owner = 0;
  int published = 0;             // so many blocks, from the first, are known to the pool by their contents
  int done = 0;                  // positions whose KV is computed
  int scheduled = 0;             // tokens of it in the current batch
  bool ended = false;            // but the batch that runs may still name it
  bool collects_prompt = false;  // logprobs of the prompt, which come with the first output token
  std::vector<LogprobEntry> prompt_logprobs;

  std::int64_t turn = 0;             // the order in which requests are served (ranks_before)
  std::int64_t arrival = 0;          // among those of the same turn
  std::optional<int> cached_tokens;  // of the prompt, when it was first admitted
  Request request;

  int total() const { return static_cast<int>(tokens.size()); }
  int remaining() const { return total() - done; }
  bool decoding() const { return remaining() == 1; }
  // The logits of this position and all behind it are wanted; so those before it need not run if their KV is there.
  int first_wanted() const { return collects_prompt ? static_cast<int>(prompt_logprobs.size()) : total() - 1; }
  // How many rows of logits are wanted of the positions before `end` that have not run.
  int rows_before(int end) const { return std::max(0, end - first_wanted()); }
  BlockPool::Tokens block_tokens(int block) const {
    return BlockPool::Tokens(tokens.data() + static_cast<std::ptrdiff_t>(block) * kKvBlock, kKvBlock);
  }
  // The last output token is never fed back, so it needs no position.
  std::int64_t max_positions() const {
    return static_cast<std::int64_t>(request.prompt.size()) + request.max_tokens - 1;
  }
};

// Lower priorities are served first, but each step of waiting counts: so an order that is fixed when requests arrive is
// fair at any time.
inline bool ranks_before(const Sequence& a, const Sequence& b) {
  return std::tie(a.turn, a.arrival) < std::tie(b.turn, b.arrival);
}

}  // namespace foe
