// Products with weights in q8_0, q4_1, q4_k or q6_k, which have a scale for each part of a block (weight_format.h).
// They are compiled by themselves; kernels/products/gemm.h has the functions to call.
//
// Sums of integers over a part are exact. Each output is one chain over ascending k of a row, with fused multiply-adds.
// Its terms are what kRowPart activations add, which share a scale: the sum over their one or two parts, in ascending
// order, of the product of the weights' scale with the sum of integers; in q4_1 and q4_k also the product of the
// minimum with the sum of the activations' codes; and this sum times the activations' scale. So the bits depend neither
// on the instruction set nor on the number of rows.
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
