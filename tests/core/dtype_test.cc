#include "core/dtype.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace foe {
namespace {

TEST(BF16, EveryValueSurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const BF16 value{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(value)))
      EXPECT_TRUE(std::isnan(to_float(to_bf16(to_float(value))))) << bits;
    else
      EXPECT_EQ(to_bf16(to_float(value)).bits, bits);
  }
}

// Of the two neighbours that share the upper half or follow it, the nearer one; of two equally near, the even one.
TEST(BF16, RoundsToNearestEven) {
  for (std::uint64_t i = 0; i < 200000; ++i) {
    const auto random = static_cast<std::uint32_t>(random_bits(1, i));
    const std::uint32_t bits = i % 4 == 0 ? (random & 0xffff0000u) | 0x8000u : random;  // half way, often
    const float x = std::bit_cast<float>(bits);
    if (!std::isfinite(x)) continue;
    const BF16 down{static_cast<std::uint16_t>(bits >> 16)}, up{static_cast<std::uint16_t>((bits >> 16) + 1)};
    // Past the largest bf16 the next step counts as 2^128, where infinity stands.
    const double above = std::isinf(to_float(up)) ? std::copysign(0x1p128, x) : to_float(up);
    const double to_down = std::abs(x - static_cast<double>(to_float(down))), to_up = std::abs(above - x);
    const BF16 expected = to_down < to_up ? down : to_up < to_down ? up : down.bits % 2 == 0 ? down : up;
    ASSERT_EQ(to_bf16(x).bits, expected.bits) << x;
  }
}

TEST(BF16, NanStaysNan) {
  // Payloads that rounding would carry into infinity or zero.
  for (const std::uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7fc00000u})
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(bits))))) << bits;
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(size_of(DType::kF32), 4u);
  EXPECT_EQ(size_of(DType::kBF16), 2u);
  EXPECT_STREQ(to_string(DType::kF32), "f32");
  EXPECT_STREQ(to_string(DType::kBF16), "bf16");
}

}  // namespace
}  // namespace foe
