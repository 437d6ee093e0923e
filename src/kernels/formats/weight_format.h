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
// int8 has rotated weights: a block of a row is its Walsh-Hadamard transform / 128 (formats/rotate-inl.h), and the
// activations beside it are transformed, too. This changes no product, spreads what is large over all numbers of a
// block, and so makes the steps to which they are rounded smaller.
//
// Four formats have the very numbers of GGUF's types of the same names (kernels/formats/stored_blocks.h), and q4_1 also
// has those of q4_0, whose m is 8 * d. A part of a block, 32 k or in q6_k 16, has a scale of its own:
//
//   q8_0       128 k, 8.5 bits a weight: scales [4 parts][16 rows] in f16; codes as in int8. weight = scale * code
//   q4_1       128 k, 5 bits a weight: d [4 parts][16 rows] and m [4 parts][16 rows] in f16; codes as in q4_k.
//              weight = d * code - m, so m is what the file has, negated
//   q4_k       128 k, 4.75 bits a weight: d [16 rows] and m [16 rows] in f16; for each part bytes s [16 rows] and
//              t [16 rows]; codes [k / 8][16 rows][4 k], bytes, whose lower half is the code of k and whose upper half
//              that of k + 4. weight = d * s * code - m * t
//   q6_k       128 k, 6.75 bits a weight: d [16 rows] in f32; s [8 parts][16 rows], signed bytes; for each part a line
//              [16 rows][4 k] of bytes, whose bits 2 i and 2 i + 1 are the high bits of the codes of k + 4 i, and then
//              the low halves of codes as in q4_k. weight = d * s * (code - 32)
//
// In files q4_0 takes 4.5 bits, as its m is not stored. The last two have blocks of 256 k there, and take 4.5
// and 6.5625 bits; here each half has its d and m, so that a matrix can be cut at multiples of 128 k, and s and t are
// whole bytes.
//
// What comes before a block's codes, its head, takes whole cache lines of 64 bytes. Codes come in such lines, too; 16
// lines of signed bytes or of pairs are what a tile register loads (kernels/products/amx.h).
//
// Activations are f32 beside f32 and bf16. Beside bf16xbf16 they are rounded to bf16, and beside all formats of
// integers to 8 bits, with a scale for each 32 beside formats in parts and for each block beside int8 and int4
// (kernels/formats/quantise.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace foe {

enum class WeightFormat { kF32, kBF16, kBF16xBF16, kInt8, kInt4, kQ8_0, kQ4_1, kQ4_K, kQ6_K };
inline constexpr WeightFormat kWeightFormats[] = {WeightFormat::kF32,  WeightFormat::kBF16, WeightFormat::kBF16xBF16,
                                                  WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kQ8_0,
                                                  WeightFormat::kQ4_1, WeightFormat::kQ4_K, WeightFormat::kQ6_K};

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
// Reads what to_string() returns. Throws Error, beginning with `what`, for anything else.
WeightFormat parse_weight_format(std::string_view what, std::string_view name);

// Returns the format in memory of weights that are of this type in a file, unless another one is asked for. f32 has the
// values of f16 exactly; those in blocks are rounded to bf16.
constexpr WeightFormat format_of(DType type) {
  return type == DType::kF32 || type == DType::kF16 ? WeightFormat::kF32 : WeightFormat::kBF16;
}
// Whether parts of a block have scales of their own, which are those of a type of GGUF. Nothing is ever rounded to such
// a format.
constexpr bool in_parts(WeightFormat format) {
  return format == WeightFormat::kQ8_0 || format == WeightFormat::kQ4_1 || format == WeightFormat::kQ4_K ||
         format == WeightFormat::kQ6_K;
}
// Whether something is subtracted from what the scale and a code give.
constexpr bool has_minimums(WeightFormat format) {
  return format == WeightFormat::kQ4_1 || format == WeightFormat::kQ4_K;
}
// Whether weights are integers with scales.
constexpr bool quantised(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4 || in_parts(format);
}
// Whether products with these weights require activations that are rounded, too (quantise_rows).
constexpr bool rounds_rows(WeightFormat format) {
  return quantised(format) || format == WeightFormat::kBF16xBF16;
}

inline constexpr int kCodeBlock = 128;  // k of a block of integers
inline constexpr int kPairBlock = 32;   // k of a block in bf16xbf16

// Returns how many k of a block share a scale, in a format in parts.
constexpr int part_depth(WeightFormat format) {
  return format == WeightFormat::kQ6_K ? 16 : 32;
}

// Returns how many k a block has.
constexpr int block_depth(WeightFormat format) {
  return quantised(format) ? kCodeBlock : format == WeightFormat::kBF16xBF16 ? kPairBlock : 1;
}
// Returns how many bytes of a panel's block come before its codes.
constexpr std::size_t head_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return 64;
    case WeightFormat::kQ8_0:
      return 128;
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ6_K:
      return 192;
    case WeightFormat::kQ4_1:
      return 256;
    default:
      return 0;
  }
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
    case WeightFormat::kQ8_0:
      return head_bytes(format) + kPanel * kCodeBlock;
    case WeightFormat::kInt4:
    case WeightFormat::kQ4_1:
    case WeightFormat::kQ4_K:
      return head_bytes(format) + kPanel * kCodeBlock / 2;
    case WeightFormat::kQ6_K:
      return head_bytes(format) + kPanel * kCodeBlock / 4 * 3;
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
