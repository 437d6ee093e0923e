// Rounds weights to the quantised formats, and activations to what products with rounded weights multiply: integers or
// bf16.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// One output row of a block of weights. In int8, rotated weight k (weight_format.h) is scale * codes[k]. In int4,
// weight k is scale * kInt4Products[codes[k]], where the kInt4Part codes of one part all have the same factor, and the
// scale is a number that bf16 holds.
struct WeightBlock {
  float scale = 0;
  std::array<std::int8_t, kCodeBlock> codes{};
};
// Returns the block of n <= kCodeBlock weights w, filled up with zeros. `format` is kInt8, which rotates them and has a
// scale of the largest magnitude / 127, or kInt4, which tries several scales and takes the one with the least squared
// error. A block of numbers below 2^-100 becomes zero. If a weight is not finite, the scale is NaN, and the whole block
// is read as NaNs.
//
// With `importance`, n numbers that are finite and not negative, the squared error of weight k counts importance[k]
// times in int4, and more scales are tried. Only their ratios matter, which are at least a millionth of the largest. If
// all are zero, or it is null, all weights count alike. int8 has nothing to choose by it: each of its rotated weights
// comes from all channels.
WeightBlock quantise_block(WeightFormat format, const float* w, int n, const float* importance = nullptr);

// Rows of activations as products with rounded weights take them: bf16 beside bf16xbf16, blocks of codes beside formats
// of integers, RowBlock for int8 and int4 and RowBlockOfParts for those in parts. Rows are padded with zeros to the
// padded depth of the weights before they are rotated, and each begins at a cache line. This is a view; the caller owns
// the memory.
struct QuantisedRows {
  std::byte* data = nullptr;
  std::size_t stride = 0;  // bytes from row to row: quantised_row_bytes()
};

// Some instructions multiply bytes only if one of the two is unsigned. Adding these offsets makes int8 codes and int4
// levels positive.
inline constexpr int kCodeOffset = 128, kLevelOffset = 32;
inline constexpr int kMostCode = 127;  // the largest code of an activation

// kCodeBlock activations of one row beside int4, or rotated ones beside int8: number k is scale * codes[k]. The other
// fields are what the offsets of the weights add to a product, with the opposite sign.
struct alignas(64) RowBlock {
  std::int8_t codes[kCodeBlock];
  float scale;
  std::int32_t offset;  // -kCodeOffset * the sum of all codes
  // For each part of the block: -kLevelOffset * the sum of its codes with k % 4 < 2, and the same for its other codes.
  // Beside int8 they are 0.
  std::int16_t part_offsets[kCodeBlock / kInt4Part][2];
};
// The same beside formats in parts (and float_offset.h): activation k is scales[k / kRowPart] * codes[k].
inline constexpr int kRowPart = 32;
struct alignas(64) RowBlockOfParts {
  std::int8_t codes[kCodeBlock];
  float scales[kCodeBlock / kRowPart];
  std::int16_t part_offsets[kCodeBlock / kInt4Part][2];
  std::int32_t wide_offsets[kCodeBlock / kRowPart];  // kFloatOffset - kCodeOffset * the sum of kRowPart codes
};
static_assert(sizeof(RowBlock) == sizeof(RowBlockOfParts));
static_assert(kLevelOffset * kMostCode * kInt4Part / 2 <= 32767);

// Returns the rows from `first` on.
inline QuantisedRows from_row(const QuantisedRows& rows, std::size_t first) {
  if (!rows.data) return {};
  return {rows.data + first * rows.stride, rows.stride};
}

// Returns how many bytes a row of n activations takes beside weights in `format`; 0 if these are multiplied with
// floats.
constexpr std::size_t quantised_bytes(WeightFormat format, int n) {
  const auto depth = static_cast<std::size_t>(padded_depth(format, n));
  return quantised(format) ? depth / kCodeBlock * sizeof(RowBlock) : rounds_rows(format) ? depth * sizeof(BF16) : 0;
}
// Returns the distance in bytes from one such row to the next: an odd number of cache lines, as the same k of many rows
// would otherwise fall into the same cache set.
constexpr std::size_t quantised_row_bytes(WeightFormat format, int n) {
  constexpr std::size_t kLine = 64;
  return rounds_rows(format) ? (quantised_bytes(format, n) / kLine | 1) * kLine : 0;
}

// Rounds x [rows, n], whose rows are `x_stride` floats apart, for weights in `format`, and writes row i to the i-th row
// of `to`. A value becomes the nearest bf16 or the nearest multiple of its scale, ties to even. If a value, or in a
// rotated block a sum of values, is not finite, its scale is NaN.
void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to);

}  // namespace foe
