// Rounding to the quantised weight formats, and rows of activations to the integers that their products take.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/weight_format.h"

namespace foe {

// Writes the block of one row: its scale to *scale, and the code of w[k] to codes[k], for k < n <= block_depth(format).
// A scale has the sign and size, among those tried, that make the squared error least. int8: a signed byte; int4: an
// index into kInt4Levels. Where a weight is not finite the scale is NaN, and so is all that is read.
void quantise_block(WeightFormat format, const float* w, int n, BF16* scale, std::int8_t* codes);

// Rows of activations as products with quantised weights take them: integers from -32767 to 32767, with one scale for
// each row. Row i is at codes + i * stride, padded with zeros to `stride`.
struct QuantisedRows {
  std::int16_t* codes = nullptr;
  std::size_t stride = 0;
  float* scales = nullptr;
};

inline QuantisedRows from_row(const QuantisedRows& rows, std::size_t first) {
  if (!rows.codes) return {};
  return {rows.codes + first * rows.stride, rows.stride, rows.scales + first};
}

// Of rows of so many floats: a multiple of every format's block.
constexpr std::size_t quantised_stride(std::size_t n) {
  return (n + 63) / 64 * 64;
}

// to[i] = row i of x [rows, n], each the nearest multiple of its scale, ties to even. A row with a value that is not
// finite has a NaN for a scale.
void quantise_rows(ThreadPool& pool, const float* x, std::size_t x_stride, int rows, int n, const QuantisedRows& to);

}  // namespace foe
