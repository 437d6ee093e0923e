// Rounding to the quantised weight formats, and rows of activations to the integers that their products take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// One row of a block of weights: weight k is scale * codes[k] in int8, and scale * kInt4Products[codes[k]] in int4,
// where the sixteen k of a part have codes with the same factor. The scale of int4 is a bf16.
struct WeightBlock {
  float scale = 0;
  std::array<std::int8_t, kCodeBlock> codes{};
};
// The block of n <= kCodeBlock weights; int4 takes the scale, among those tried, that makes the squared error least.
// Where a weight is not finite the scale is NaN, and so is all that is read.
WeightBlock quantise_block(WeightFormat format, const float* w, int n);

// Rows of activations as products with some formats take them, padded with zeros to the weights' depth: bf16 beside
// bf16xbf16, and blocks of codes (RowBlock) beside integers, whichever they are. All begin at cache lines.
struct QuantisedRows {
  std::byte* data = nullptr;
  std::size_t stride = 0;  // bytes from row to row: quantised_row_bytes()
};

// What makes all weights positive, as some products of bytes take them: int8 codes, and int4 levels.
inline constexpr int kCodeOffset = 128, kLevelOffset = 32;
inline constexpr int kMostCode = 127;  // of activations

struct alignas(64) RowBlock {
  std::int8_t codes[kCodeBlock];
  float scale;
  std::int32_t offset;  // -kCodeOffset times the sum of the codes
  // -kLevelOffset times the sum of those codes of a part with k % 4 < 2, and of the others.
  std::int16_t part_offsets[kCodeBlock / kInt4Part][2];
};
static_assert(kLevelOffset * kMostCode * kInt4Part / 2 <= 32767);

inline QuantisedRows from_row(const QuantisedRows& rows, std::size_t first) {
  if (!rows.data) return {};
  return {rows.data + first * rows.stride, rows.stride};
}

// Of n floats of a row, for weights in `format`; none where they take floats.
constexpr std::size_t quantised_bytes(WeightFormat format, int n) {
  const auto depth = static_cast<std::size_t>(padded_depth(format, n));
  return quantised(format) ? depth / kCodeBlock * sizeof(RowBlock) : rounds_rows(format) ? depth * sizeof(BF16) : 0;
}
// From row to row of n floats: an odd number of cache lines, as the same k of many rows would otherwise displace each
// other in caches.
constexpr std::size_t quantised_row_bytes(WeightFormat format, int n) {
  constexpr std::size_t kLine = 64;
  return rounds_rows(format) ? (quantised_bytes(format, n) / kLine | 1) * kLine : 0;
}

// to[i] = row i of x [rows, n] for weights in `format`: the nearest bf16, or the nearest multiple of its block's scale,
// ties to even. Where a value of a block is not finite, its scale is NaN.
void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to);

}  // namespace foe
