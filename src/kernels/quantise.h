// Rounding to the quantised weight formats, and rows of activations to the integers that their products take.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/weight_format.h"

namespace foe {

// Writes the block of one row: its scale to *scale, and the code of w[k] to codes[k], for k < n <= scale_depth(format).
// A scale has the sign and size, among those tried, that make the squared error least. int8: a signed byte; int4: an
// index into kInt4Levels. Where a weight is not finite the scale is NaN, and so is all that is read.
void quantise_block(WeightFormat format, const float* w, int n, BF16* scale, std::int8_t* codes);

// Rows of activations as products with quantised weights take them, `stride` bytes apart: blocks as deep as what shares
// a scale in the weights, each of codes with a scale of its own, padded with zeros to the weights' depth. Beside
// weights in int4, 7 bits lose next to nothing, and sums of their products fit into 16.
struct QuantisedRows {
  std::byte* data = nullptr;
  std::size_t stride = 0;
};

// What makes all weights positive, as some products of bytes take them: int8 codes and int4 levels.
inline constexpr int kCodeOffset = 128, kLevelOffset = 32;

// The largest code of activations.
constexpr int most_code(WeightFormat format) {
  return format == WeightFormat::kInt8 ? 127 : 63;
}

template <WeightFormat>
struct RowBlock;
template <>
struct RowBlock<WeightFormat::kInt8> {
  std::int8_t codes[scale_depth(WeightFormat::kInt8)];
  float scale;
  std::int32_t offset;  // -kCodeOffset times the sum of the codes
};
template <>
struct RowBlock<WeightFormat::kInt4> {
  std::int8_t codes[scale_depth(WeightFormat::kInt4)];
  float scale;
  std::int32_t offset;      // -kLevelOffset times the sum of the codes
  std::int16_t offsets[2];  // of those k with k % 4 < 2, and of the others
};

inline QuantisedRows from_row(const QuantisedRows& rows, std::size_t first) {
  if (!rows.data) return {};
  return {rows.data + first * rows.stride, rows.stride};
}

// Of a row of n floats, for weights in `format`.
constexpr std::size_t quantised_row_bytes(WeightFormat format, int n) {
  const std::size_t blocks = padded_depth(format, n) / scale_depth(format);
  return blocks * (format == WeightFormat::kInt8 ? sizeof(RowBlock<WeightFormat::kInt8>)
                                                 : sizeof(RowBlock<WeightFormat::kInt4>));
}

// to[i] = row i of x [rows, n] for weights in `format`: each the nearest multiple of its block's scale, ties to even.
// Where a value is not finite, its scale is NaN.
void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to);

}  // namespace foe
