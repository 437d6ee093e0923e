// How attention's output projection is packed: in the blocks of its sum (core/sum_blocks.h). No two of these share a
// block of the weight format, so that a rank's part is rounded to the same bits as on one rank.
#pragma once

#include <span>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"

namespace foe {

// One block. The matrix is the part of the output projection for a rank's own heads, and heads and columns count from
// the first of these. The columns [column, column + columns) are packed as columns [at, at + depth), which are filled
// up with zeros to whole blocks of the format.
struct OutputBlock {
  Range kv_heads;
  int column = 0, columns = 0;
  int at = 0, depth = 0;
};

// Returns the blocks of the query heads of these KV heads, ascending; none if there are no heads.
std::vector<OutputBlock> output_blocks(const ModelConfig& config, WeightFormat format, Range kv_heads);
// Returns the depth of all blocks together.
int packed_depth(std::span<const OutputBlock> blocks);
// Packs `o` [D, columns of all blocks]. Like pack() in kernels/products/gemm.h.
PackedMatrix pack_output(ThreadPool& pool, const StoredMatrix& o, std::span<const OutputBlock> blocks,
                         WeightFormat format, PackingSpace* space = nullptr, const ColumnErrors& errors = {});

}  // namespace foe
