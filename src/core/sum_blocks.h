// Where plan tp cuts the inner dimension of a product. The cuts fix the order of addition in every plan.
//
// Attention's output projection adds over heads, and a dense layer's down projection over hidden units. Both are cut
// into at most kSumBlocks blocks, which are the same on any number of ranks. A product adds each block in ascending k,
// and then the blocks in the order of core/sum_tree.h. A rank of plan tp has whole blocks, so what it sends are partial
// sums of the same tree. (Experts need no such cut, because they are the terms of a sum already.)
#pragma once

#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

// Enough for eight ranks to share a layer. More would cost time, as each block begins a new chain of multiply-adds.
inline constexpr int kSumBlocks = 8;
// Hidden units are cut at multiples of this, because no weight format has deeper blocks (weight_format.h).
inline constexpr int kSumBlockUnit = 128;

// The blocks of a sum: block b is [begin[b], begin[b + 1]) of the dimension that is cut.
struct SumBlocks {
  std::vector<int> begin;

  int count() const { return static_cast<int>(begin.size()) - 1; }
  // Returns the part of the dimension that these blocks make up together.
  Range cover(Range blocks) const { return {begin[blocks.begin], begin[blocks.end]}; }
  // Returns the blocks that make up `part`, which must not cut a block.
  Range within(Range part) const;
};

// Returns the blocks of KV heads, each with its query heads. Their sizes differ by at most one. In a federated model a
// block is the heads of one group.
SumBlocks head_blocks(const ModelConfig& config);
// Returns the blocks of an expert's hidden units: several in a dense layer, otherwise one with all units.
SumBlocks width_blocks(const ModelConfig& config, int layer);

}  // namespace foe
