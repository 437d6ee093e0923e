// How a packed matrix stores its weights: f32, bf16, or integers, of which some along the depth share a scale.
//
// A block is 64 k of a panel of 16 output rows: bf16 scales, then the codes of all of them, so that a panel is read
// once, from its first byte to its last:
//
//   int8   8.25 bits a weight: scales [16 rows], codes [k / 2][16 rows][2 k], signed bytes; weight = scale * code
//   int4   4.5 bits a weight: scales [k / 32][16 rows], codes [k / 8][16 rows][4 k], bytes of two indices into
//          kInt4Levels, the lower half for k and the upper one for k + 4; weight = scale * level. Scales and each
//          64 bytes of codes are a cache line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace foe {

enum class WeightFormat { kF32, kBF16, kInt8, kInt4 };

inline constexpr int kPanel = 16;

// Denser where weights are: of levels from -32 to 31 those with the least squared error for normally distributed
// weights whose block of 32 has the best scale, within what its sample decides (tools/int4_levels.py searches them),
// ascending.
inline constexpr std::int8_t kInt4Levels[16] = {-29, -22, -17, -13, -10, -7, -4, -1, 2, 5, 8, 11, 15, 19, 24, 30};
inline constexpr int kMostLevel = std::max<int>(-kInt4Levels[0], kInt4Levels[15]);

const char* to_string(WeightFormat format);
// "f32", "bf16", "int8" or "int4"; anything else is an Error that begins with `what`.
WeightFormat parse_weight_format(std::string_view what, std::string_view name);

constexpr WeightFormat format_of(DType type) {
  return type == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
}
constexpr bool quantised(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}

// k of a block; 1 where there is none.
constexpr int block_depth(WeightFormat format) {
  return quantised(format) ? 64 : 1;
}
// k that share a scale; 1 where there is none.
constexpr int scale_depth(WeightFormat format) {
  return format == WeightFormat::kInt4 ? 32 : block_depth(format);
}
// Of a row in a block.
constexpr int scales_in_block(WeightFormat format) {
  return quantised(format) ? block_depth(format) / scale_depth(format) : 0;
}
// Of the scales of a panel's block, which come first.
constexpr std::size_t scale_bytes(WeightFormat format) {
  return scales_in_block(format) * kPanel * sizeof(BF16);
}
// Of the codes of those k of a panel that share a scale.
constexpr std::size_t code_bytes(WeightFormat format) {
  const std::size_t codes = quantised(format) ? kPanel * scale_depth(format) : 0;
  return format == WeightFormat::kInt4 ? codes / 2 : codes;
}
// Of a panel's block.
constexpr std::size_t block_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return kPanel * sizeof(float);
    case WeightFormat::kBF16:
      return kPanel * sizeof(BF16);
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return scale_bytes(format) + scales_in_block(format) * code_bytes(format);
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
