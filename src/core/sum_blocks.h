// Where plan tp cuts the inner dimension of a product, and so in which order every plan adds it.
//
// The output projection of attention adds over heads, and a dense model's down projection over hidden units. Both are
// cut into at most kSumBlocks blocks, the same on any number of ranks: a product adds each block in ascending k, and
// the blocks in the order of core/sum_tree.h. A rank of plan tp has whole blocks, so it sends partial sums of the same
// tree. (Experts need no such cut: they are the terms of a sum already.)
#pragma once

#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

// As few as let eight ranks share a layer: each begins a new chain of multiply-adds.
inline constexpr int kSumBlocks = 8;
// Hidden units are cut at multiples of this, which no format of weights has a deeper block than.
inline constexpr int kSumBlockUnit = 128;

// A sum's blocks: the b-th is [begin[b], begin[b + 1]) of what is cut.
struct SumBlocks {
  std::vector<int> begin;

  int count() const { return static_cast<int>(begin.size()) - 1; }
  // What these blocks are together.
  Range cover(Range blocks) const { return {begin[blocks.begin], begin[blocks.end]}; }
  // The blocks that make up `part`. It must not cut one.
  Range within(Range part) const;
};

// KV heads, each with its query heads, in blocks whose sizes differ by one at most. In a federated model a block is a
// group's heads.
SumBlocks head_blocks(const ModelConfig& config);
// The hidden units of each expert: all in one block, but for a dense model's.
SumBlocks width_blocks(const ModelConfig& config);

}  // namespace foe
