// Element types of stored tensors: floats, and the blocks of GGUF files, in which consecutive elements of a row share a
// scale (kernels/formats/stored_blocks.h has their layouts).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace foe {

enum class DType { kF32, kBF16, kF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K, kMXFP4 };

struct DTypeInfo {
  const char* name;
  int elements;       // of a block; 1: elements are floats, each by itself
  std::size_t bytes;  // of a block
};
inline constexpr DTypeInfo kDTypes[] = {
    {"f32", 1, 4},    {"bf16", 1, 2},   {"f16", 1, 2},      {"q4_0", 32, 18},   {"q4_1", 32, 20},   {"q5_0", 32, 22},
    {"q5_1", 32, 24}, {"q8_0", 32, 34}, {"q4_k", 256, 144}, {"q5_k", 256, 176}, {"q6_k", 256, 210}, {"mxfp4", 32, 17},
};

constexpr const DTypeInfo& info_of(DType type) {
  return kDTypes[static_cast<int>(type)];
}
constexpr const char* to_string(DType type) {
  return info_of(type).name;
}
// Whether elements share scales.
constexpr bool in_blocks(DType type) {
  return info_of(type).elements > 1;
}
// Returns the bytes of an element, of a type that is not in blocks.
constexpr std::size_t size_of(DType type) {
  return info_of(type).bytes;
}
// Returns the bytes of so many elements, which must be whole blocks.
constexpr std::size_t bytes_of(DType type, std::int64_t elements) {
  return static_cast<std::size_t>(elements / info_of(type).elements) * info_of(type).bytes;
}

// bfloat16 is the upper half of an f32.
struct BF16 {
  std::uint16_t bits;
};

constexpr float to_float(BF16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// IEEE 754's half precision.
struct F16 {
  std::uint16_t bits;
};

constexpr float to_float(F16 value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16, rest = value.bits & 0x7fffu;
  if (rest < 0x400u) {  // zero, or too small for an exponent of its own
    const float small = static_cast<float>(rest) * 0x1p-24f;
    return sign ? -small : small;
  }
  const std::uint32_t exponent = rest >= 0x7c00u ? 0x7f800000u - (0x7c00u << 13) : (127u - 15u) << 23;
  return std::bit_cast<float>(sign | ((rest << 13) + exponent));
}

// Round to nearest, ties to even; NaN stays NaN.
constexpr BF16 to_bf16(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace foe
