// How a packed matrix stores its weights: f32, bf16, or integers in blocks along the depth with a scale each.
//
// A block of a panel of 16 output rows is 16 bf16 scales, one for each row, and then the codes of 64 (int8) or 32
// (int4) k of all of them, so that a panel is read once, from its first byte to its last:
//
//   int8   8.25 bits a weight: codes [k / 2][16 rows][2 k], signed bytes; weight = scale * code
//   int4   4.5 bits a weight: codes [k / 4][8 rows][4 k], bytes of two indices into kInt4Levels, the lower half for row
//          r and the upper one for row r + 8; weight = scale * level
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

// k that share a scale; 1 where there is none.
constexpr int block_depth(WeightFormat format) {
  return format == WeightFormat::kInt8 ? 64 : format == WeightFormat::kInt4 ? 32 : 1;
}
// Of the scales of a panel's block, which come first.
constexpr std::size_t scale_bytes(WeightFormat format) {
  return quantised(format) ? kPanel * sizeof(BF16) : 0;
}
// Of a panel's block.
constexpr std::size_t block_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return kPanel * sizeof(float);
    case WeightFormat::kBF16:
      return kPanel * sizeof(BF16);
    case WeightFormat::kInt8:
      return scale_bytes(format) + kPanel * 64;
    case WeightFormat::kInt4:
      return scale_bytes(format) + kPanel * 32 / 2;
  }
  return 0;
}
constexpr std::size_t panel_bytes(WeightFormat format, int depth) {
  const int block = block_depth(format);
  return static_cast<std::size_t>((depth + block - 1) / block) * block_bytes(format);
}
// Per weight, where the depth is whole blocks.
constexpr double bits(WeightFormat format) {
  return 8.0 * static_cast<double>(block_bytes(format)) / (kPanel * block_depth(format));
}

}  // namespace foe
