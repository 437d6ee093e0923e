#include "kernels/targets.h"  // before any Highway header

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bf16_weight_test.cc"
#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <hwy/foreach_target.h>

#include "base/rng.h"
#include "bf16_weight.h"
#include "each_target.h"
#include "kernels/formats/bf16_weight-inl.h"
#include "kernels/products/flush_subnormals.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

HWY_NOINLINE void weigh16(const float* dots, float scale, float minus_largest, float* weights) {
  store16(weight16(load16(dots), set16(scale), set16(minus_largest)), weights);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(weigh16);

// Of all exponents: an ulp of difference between instruction sets would mostly vanish when weights are rounded.
TEST(Bf16Weight, HasItsBitsOnEveryTargetAndIsClose) {
  for_each_target([] {
    const FlushSubnormals flush;
    for (int seed = 0; seed < 20000; ++seed) {
      float y[16], w[16];
      for (int i = 0; i < 16; ++i) {
        const double unit = random_unit(seed, i);
        y[i] = static_cast<float>(i % 2 ? -128 * unit : -std::ldexp(unit, static_cast<int>(seed % 40) - 33));
      }
      HWY_DYNAMIC_DISPATCH(weigh16)(y, 1, 0, w);
      for (int i = 0; i < 16; ++i) {
        ASSERT_EQ(w[i], unrounded_weight(y[i])) << y[i];
        if (y[i] >= -126) {
          ASSERT_NEAR(w[i] / std::exp2(static_cast<double>(y[i])), 1, 0x1p-18) << y[i];
        }
      }
    }
  });
}

TEST(Bf16Weight, AtItsEnds) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for_each_target([&] {
    const FlushSubnormals flush;
    float y[16] = {0, -0.0f, -kInfinity, -1e30f, -127, -126.5f, -126, -1, 1e-7f, std::nanf("")}, w[16];
    HWY_DYNAMIC_DISPATCH(weigh16)(y, 1, 0, w);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(to_float(to_bf16(w[i])), 1);
    for (int i = 2; i < 6; ++i) EXPECT_EQ(w[i], 0) << y[i];
    EXPECT_GE(w[6], 0x1p-126f);
    EXPECT_EQ(to_float(to_bf16(w[7])), 0.5f);
    EXPECT_EQ(to_float(to_bf16(w[8])), 1);
    EXPECT_TRUE(std::isnan(w[9]));
  });
}

}  // namespace
}  // namespace foe
#endif
