// Products with weights in q8_0, q4_k or q6_k, which have a scale for each part of a block (weight_format.h). They are
// compiled by themselves; kernels/products/gemm.h has the functions to call.
//
// Sums of integers over a part are exact. Each output is one chain over ascending blocks of a row, with fused
// multiply-adds: the parts of a block are added in ascending order, each the product of its minimum with the sum of the
// activations' codes (in q4_k) and then the product of its scale with its sum; the block's sum times the scale of the
// row's block is then added to the output. So the bits depend neither on the instruction set nor on the number of rows.
#pragma once

#include <cstddef>

#include "kernels/formats/weight_format.h"

namespace foe {

// Some rows, as quantise_rows() writes them, and some panels.
struct PartsProduct {
  WeightFormat format;
  const std::byte* const* x;  // the rows
  int rows, panels;
  const std::byte* w;  // the first panel; the others follow at panel_stride
  std::size_t panel_stride;
  int depth;
  float* y;  // [rows][panels][16]
};

void multiply_parts(const PartsProduct& product);

}  // namespace foe
