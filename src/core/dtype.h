// Element types of stored tensors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace foe {

enum class DType { kF32, kBF16 };

constexpr std::size_t size_of(DType type) {
  return type == DType::kF32 ? 4 : 2;
}
constexpr const char* to_string(DType type) {
  return type == DType::kF32 ? "f32" : "bf16";
}

// bfloat16 is the upper half of an f32.
struct BF16 {
  std::uint16_t bits;
};

constexpr float to_float(BF16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
constexpr BF16 to_bf16(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace foe
