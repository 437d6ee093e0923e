// Attention's output projection as it is packed: in the blocks of its sum (core/sum_blocks.h), none of which shares a
// block of the format with another, so that a rank's share of them has the bits that it has on one rank.
#pragma once

#include <span>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"

namespace foe {

// Columns [column, column + columns) of the matrix, which stand packed in [at, at + depth): filled up with zeros where
// they are not whole blocks of the format.
struct OutputBlock {
  int column = 0, columns = 0;
  int at = 0, depth = 0;
};

// Of the matrix of these KV heads' query heads, ascending; none without heads.
std::vector<OutputBlock> output_blocks(const ModelConfig& config, WeightFormat format, Range kv_heads);
// Of all of them together.
int packed_depth(std::span<const OutputBlock> blocks);
// Packs o [D, columns of all blocks].
PackedMatrix pack_output(ThreadPool& pool, const StoredMatrix& o, std::span<const OutputBlock> blocks,
                         WeightFormat format, PackingSpace* space = nullptr);

}  // namespace foe
