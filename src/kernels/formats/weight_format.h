// How a packed matrix stores its weights: floats, pairs of bf16, or integers, of which some along the depth share a
// scale.
//
// A panel is 16 output rows, and a block is what its rows have for some k, so that a panel is read once, from its first
// byte to its last:
//
//   f32, bf16  one k: [16 rows]
//   bf16xbf16  32 k: pairs [k / 2][16 rows][2 k]
//   int8       128 k, 8.25 bits a weight: scales [16 rows] f32, codes [k / 4][16 rows][4 k], signed bytes;
//              weight = scale * code
//   int4       128 k, 4.25 bits a weight: scales [16 rows] bf16, choices [16 rows] of 16 bits, two of them for each
//              kInt4Part k, lowest first; codes [k / 8][16 rows][4 k], bytes of two indices into kInt4Levels, the lower
//              half for k and the upper one for k + 4; weight = scale * kInt4Factors[choice] * kInt4Levels[index],
//              where the product of the two integers is a signed byte
//
// What a block begins with is a cache line, as are 64 bytes of codes, and 16 of these lines with signed bytes or with
// pairs are what a tile register takes (kernels/products/amx.h).
//
// Activations are f32 beside f32 and bf16; beside bf16xbf16 they are rounded to bf16, too, and beside integers to 8
// bits with a scale for each block (kernels/formats/quantise.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace foe {

enum class WeightFormat { kF32, kBF16, kBF16xBF16, kInt8, kInt4 };
inline constexpr WeightFormat kWeightFormats[] = {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kBF16xBF16,
                                                  WeightFormat::kInt8, WeightFormat::kInt4};

inline constexpr int kPanel = 16;

// Denser where weights are: with kInt4Factors those levels from -32 to 31 that have the least squared error for
// normally distributed weights, within what its sample decides (tools/int4_levels.py searches them), ascending.
inline constexpr std::int8_t kInt4Levels[16] = {-28, -22, -17, -13, -10, -7, -4, -1, 2, 5, 8, 11, 15, 19, 25, 31};
inline constexpr int kMostLevel = std::max<int>(-kInt4Levels[0], kInt4Levels[15]);
// Levels are not symmetric: a negative factor turns them round where the largest weight of a part is negative.
inline constexpr std::int8_t kInt4Factors[4] = {2, 3, 4, -4};
inline constexpr int kMostFactor = 4;
static_assert(kMostFactor * kMostLevel <= 127);
inline constexpr int kInt4Part = 16;  // k that share a factor

// kInt4Factors[i / 16] * kInt4Levels[i % 16].
inline constexpr std::array<std::int8_t, 64> kInt4Products = [] {
  std::array<std::int8_t, 64> products{};
  for (int i = 0; i < 64; ++i) products[i] = static_cast<std::int8_t>(kInt4Factors[i / 16] * kInt4Levels[i % 16]);
  return products;
}();

const char* to_string(WeightFormat format);
// "f32", "bf16", "bf16xbf16", "int8" or "int4"; anything else is an Error that begins with `what`.
WeightFormat parse_weight_format(std::string_view what, std::string_view name);

constexpr WeightFormat format_of(DType type) {
  return type == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
}
constexpr bool quantised(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}
// Whether products take activations that are rounded, too (quantise_rows).
constexpr bool rounds_rows(WeightFormat format) {
  return quantised(format) || format == WeightFormat::kBF16xBF16;
}

inline constexpr int kCodeBlock = 128;  // k of a block of integers
inline constexpr int kPairBlock = 32;   // and of pairs of bf16

// k of a block.
constexpr int block_depth(WeightFormat format) {
  return quantised(format) ? kCodeBlock : format == WeightFormat::kBF16xBF16 ? kPairBlock : 1;
}
// Of what is before the codes of a panel's block.
constexpr std::size_t head_bytes(WeightFormat format) {
  return quantised(format) ? 64 : 0;
}
// Of a panel's block.
constexpr std::size_t block_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return kPanel * sizeof(float);
    case WeightFormat::kBF16:
    case WeightFormat::kBF16xBF16:
      return kPanel * sizeof(BF16) * block_depth(format);
    case WeightFormat::kInt8:
      return head_bytes(format) + kPanel * kCodeBlock;
    case WeightFormat::kInt4:
      return head_bytes(format) + kPanel * kCodeBlock / 2;
  }
  return 0;
}
// With the zeros that fill the last block.
constexpr int padded_depth(WeightFormat format, int depth) {
  const int block = block_depth(format);
  return (depth + block - 1) / block * block;
}
constexpr std::size_t panel_bytes(WeightFormat format, int depth) {
  return static_cast<std::size_t>(padded_depth(format, depth) / block_depth(format)) * block_bytes(format);
}
// Per weight, where the depth is whole blocks.
constexpr double bits(WeightFormat format) {
  return 8.0 * static_cast<double>(block_bytes(format)) / (kPanel * block_depth(format));
}

}  // namespace foe
