#include "kernels/formats/stored_blocks.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace foe {
namespace {

float half_at(const std::uint8_t* at) {
  F16 half;
  std::memcpy(&half, at, sizeof half);
  return to_float(half);
}

// The types with blocks of 32: element i has its four low bits in byte i % 16 of `low`.
unsigned low_bits(const std::uint8_t* low, int i) {
  return i < 16 ? low[i] & 15u : low[i - 16] >> 4;
}

struct Q4_0 {
  static void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int>(low_bits(in + 2, i)) - 8);
  }
};

struct Q4_1 {
  static void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in), m = half_at(in + 2);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(low_bits(in + 4, i)) + m;
  }
};

struct Q5_0 {
  static void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in);
    std::uint32_t high;
    std::memcpy(&high, in + 2, sizeof high);
    for (int i = 0; i < 32; ++i)
      out[i] = d * static_cast<float>(static_cast<int>(low_bits(in + 6, i) | (high >> i & 1) << 4) - 16);
  }
};

struct Q5_1 {
  static void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in), m = half_at(in + 2);
    std::uint32_t high;
    std::memcpy(&high, in + 4, sizeof high);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(low_bits(in + 8, i) | (high >> i & 1) << 4) + m;
  }
};

struct Q8_0 {
  static void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<std::int8_t>(in[2 + i]));
  }
};

struct ScaleAndMin {
  float scale, min;
};

// The j-th pair of q4_k and q5_k.
ScaleAndMin pair_of(const std::uint8_t* in, int j) {
  const PairOfCodes codes = pair_of_codes(in, j);
  return {half_at(in) * static_cast<float>(codes.s), half_at(in + 2) * static_cast<float>(codes.t)};
}

struct Q4_K {
  static void decode(const std::uint8_t* in, float* out) {
    for (int j = 0; j < 8; ++j) {
      const auto [scale, min] = pair_of(in, j);
      const std::uint8_t* low = in + 16 + j / 2 * 32;
      for (int i = 0; i < 32; ++i) out[32 * j + i] = scale * static_cast<float>(low[i] >> j % 2 * 4 & 15) - min;
    }
  }
};

struct Q5_K {
  static void decode(const std::uint8_t* in, float* out) {
    for (int j = 0; j < 8; ++j) {
      const auto [scale, min] = pair_of(in, j);
      const std::uint8_t *high = in + 16, *low = in + 48 + j / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        const int code = (low[i] >> j % 2 * 4 & 15) | (high[i] >> j & 1) << 4;
        out[32 * j + i] = scale * static_cast<float>(code) - min;
      }
    }
  }
};

struct Q6_K {
  static void decode(const std::uint8_t* in, float* out) {
    const std::uint8_t* scales = in + 192;
    const float d = half_at(in + 208);
    for (int j = 0; j < 16; ++j) {
      const float scale = d * static_cast<float>(static_cast<std::int8_t>(scales[j]));
      const int in_half = j % 8 * 16;  // the first element's place among 128
      const std::uint8_t* low = in + j / 8 * 64 + in_half % 64;
      const std::uint8_t* high = in + 128 + j / 8 * 32 + in_half % 32;
      for (int i = 0; i < 16; ++i) {
        const int code = (low[i] >> in_half / 64 * 4 & 15) | (high[i] >> in_half / 32 * 2 & 3) << 4;
        out[16 * j + i] = scale * static_cast<float>(code - 32);
      }
    }
  }
};

struct Mxfp4 {
  static void decode(const std::uint8_t* in, float* out) {
    const float scale = in[0] == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, in[0] - 127);
    for (int i = 0; i < 32; ++i) out[i] = scale * kFp4Levels[low_bits(in + 1, i)];
  }
};

template <typename Block>
void decode_all(DType type, const std::byte* from, std::size_t elements, float* out) {
  const DTypeInfo& block = info_of(type);
  const auto* in = reinterpret_cast<const std::uint8_t*>(from);
  for (const float* end = out + elements; out < end; out += block.elements, in += block.bytes) Block::decode(in, out);
}

template <typename Half>
void widen(const std::byte* from, std::size_t elements, float* out) {
  for (std::size_t i = 0; i < elements; ++i) {
    Half half;
    std::memcpy(&half, from + i * sizeof half, sizeof half);
    out[i] = to_float(half);
  }
}

}  // namespace

// Of the twelve bytes, the first four have the scales of the first four pairs in six bits, the next four their minima,
// the last four the low halves of the other pairs, whose high bits are in the eight bytes before.
PairOfCodes pair_of_codes(const std::uint8_t* in, int j) {
  const std::uint8_t* packed = in + 4;
  const int i = j % 4;
  if (j < 4) return {packed[i] & 63u, packed[4 + i] & 63u};
  const unsigned low = packed[8 + i], high_s = packed[i] >> 6u, high_t = packed[4 + i] >> 6u;
  return {(low & 15) | high_s << 4, low >> 4 | high_t << 4};
}

void decode(DType type, const std::byte* from, std::size_t elements, float* out) {
  FOE_CHECK(elements % info_of(type).elements == 0, "{} elements of {}", elements, to_string(type));
  switch (type) {
    case DType::kF32:
      if (elements > 0) std::memcpy(out, from, elements * sizeof(float));
      return;
    case DType::kBF16:
      return widen<BF16>(from, elements, out);
    case DType::kF16:
      return widen<F16>(from, elements, out);
    case DType::kQ4_0:
      return decode_all<Q4_0>(type, from, elements, out);
    case DType::kQ4_1:
      return decode_all<Q4_1>(type, from, elements, out);
    case DType::kQ5_0:
      return decode_all<Q5_0>(type, from, elements, out);
    case DType::kQ5_1:
      return decode_all<Q5_1>(type, from, elements, out);
    case DType::kQ8_0:
      return decode_all<Q8_0>(type, from, elements, out);
    case DType::kQ4_K:
      return decode_all<Q4_K>(type, from, elements, out);
    case DType::kQ5_K:
      return decode_all<Q5_K>(type, from, elements, out);
    case DType::kQ6_K:
      return decode_all<Q6_K>(type, from, elements, out);
    case DType::kMXFP4:
      return decode_all<Mxfp4>(type, from, elements, out);
  }
}

}  // namespace foe
