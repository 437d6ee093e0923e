// How a packed matrix stores its weights: as floats, as pairs of bf16, or as integers of which a block along k shares a
// scale. k counts along the depth of the matrix, the dimension that a product sums over.
//
// A panel is 16 output rows. It is a sequence of blocks in ascending k, and a block has all 16 rows for some
// consecutive k. So a product reads a panel once, from its first byte to its last. A block is, in order:
//
//   f32, bf16  1 k: weights [16 rows]
//   bf16xbf16  32 k: pairs of weights [k / 2][16 rows][2 k]
//   int8       128 k, 8.25 bits a weight: scales [16 rows] in f32; codes [k / 4][16 rows][4 k], signed bytes.
//              weight = scale * code
//   int4       128 k, 4.25 bits a weight: scales [16 rows] in bf16; choices [16 rows], 16 bits each, of which two bits
//              choose the factor of kInt4Part k, the lowest bits first; codes [k / 8][16 rows][4 k], bytes, whose lower
//              half is the index of k into kInt4Levels and whose upper half that of k + 4.
//              weight = scale * kInt4Factors[choice] * kInt4Levels[index]; the product of the two integers fits into a
//              signed byte
//
// The scales (and choices) of a block take 64 bytes, a cache line. Codes come in lines of 64 bytes, too; 16 lines of
// signed bytes or of pairs are what a tile register loads (kernels/products/amx.h).
//
// Activations are f32 beside f32 and bf16. Beside bf16xbf16 they are rounded to bf16, and beside int8 and int4 to 8
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

inline constexpr int kPanel = 16;  // output rows of a panel

// The sixteen levels of int4, ascending, which are denser where most weights are. With kInt4Factors, these integers
// from -32 to 31 give the least squared error for normally distributed weights, as far as the random sample of
// tools/int4_levels.py can tell.
inline constexpr std::int8_t kInt4Levels[16] = {-28, -22, -17, -13, -10, -7, -4, -1, 2, 5, 8, 11, 15, 19, 25, 31};
inline constexpr int kMostLevel = std::max<int>(-kInt4Levels[0], kInt4Levels[15]);
// A part of a block multiplies its levels by one of these. As levels are not symmetric, a negative factor serves parts
// whose largest weight is negative.
inline constexpr std::int8_t kInt4Factors[4] = {2, 3, 4, -4};
inline constexpr int kMostFactor = 4;
static_assert(kMostFactor * kMostLevel <= 127);
inline constexpr int kInt4Part = 16;  // consecutive k that share a factor

// All weights of int4 with scale 1: element i is kInt4Factors[i / 16] * kInt4Levels[i % 16].
inline constexpr std::array<std::int8_t, 64> kInt4Products = [] {
  std::array<std::int8_t, 64> products{};
  for (int i = 0; i < 64; ++i) products[i] = static_cast<std::int8_t>(kInt4Factors[i / 16] * kInt4Levels[i % 16]);
  return products;
}();

const char* to_string(WeightFormat format);
// Reads "f32", "bf16", "bf16xbf16", "int8" or "int4". Throws Error, beginning with `what`, for anything else.
WeightFormat parse_weight_format(std::string_view what, std::string_view name);

// Returns the format in memory of weights that are of this type in a file, unless another one is asked for. f32 has the
// values of f16 exactly; those in blocks are rounded to bf16.
constexpr WeightFormat format_of(DType type) {
  return type == DType::kF32 || type == DType::kF16 ? WeightFormat::kF32 : WeightFormat::kBF16;
}
constexpr bool quantised(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}
// Whether products with these weights require activations that are rounded, too (quantise_rows).
constexpr bool rounds_rows(WeightFormat format) {
  return quantised(format) || format == WeightFormat::kBF16xBF16;
}

inline constexpr int kCodeBlock = 128;  // k of a block in int8 and int4
inline constexpr int kPairBlock = 32;   // k of a block in bf16xbf16

// Returns how many k a block has.
constexpr int block_depth(WeightFormat format) {
  return quantised(format) ? kCodeBlock : format == WeightFormat::kBF16xBF16 ? kPairBlock : 1;
}
// Returns how many bytes of a panel's block come before its codes.
constexpr std::size_t head_bytes(WeightFormat format) {
  return quantised(format) ? 64 : 0;
}
// Returns how many bytes a panel's block has.
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
// Returns `depth` with the zeros that fill up the last block.
constexpr int padded_depth(WeightFormat format, int depth) {
  const int block = block_depth(format);
  return (depth + block - 1) / block * block;
}
constexpr std::size_t panel_bytes(WeightFormat format, int depth) {
  return static_cast<std::size_t>(padded_depth(format, depth) / block_depth(format)) * block_bytes(format);
}
// Returns how many bits a weight takes, scales included, in a matrix whose depth is whole blocks.
constexpr double bits(WeightFormat format) {
  return 8.0 * static_cast<double>(block_bytes(format)) / (kPanel * block_depth(format));
}

}  // namespace foe
