#include "kernels/targets.h"  // before any Highway header

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/math_test.cc"
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/foreach_target.h>

#include "each_target.h"
#include "kernels/math-inl.h"
#include "kernels/ref.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

void exp_array(const float* x, float* y) {
  store16(exp16(load16(x)), y);
}
void silu_array(const float* x, float* y) {
  store16(silu16(load16(x)), y);
}
void gelu_tanh_array(const float* x, float* y) {
  store16(activate16(Activation::kGeluTanh, load16(x)), y);
}
void relu2_array(const float* x, float* y) {
  store16(activate16(Activation::kRelu2, load16(x)), y);
}
void tanh_array(const float* x, float* y) {
  store16(tanh16(load16(x)), y);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(exp_array);
HWY_EXPORT(silu_array);
HWY_EXPORT(gelu_tanh_array);
HWY_EXPORT(relu2_array);
HWY_EXPORT(tanh_array);

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Calls body(x, f(x)) for every `step`-th float from `from` away from zero up to `to`, of the same sign.
template <typename Function, typename Body>
void sweep(float from, float to, std::uint32_t step, Function&& f, Body&& body) {
  const std::uint32_t last = std::bit_cast<std::uint32_t>(to);
  for (std::uint64_t bits = std::bit_cast<std::uint32_t>(from); bits <= last; bits += 16ull * step) {
    float x[16], y[16];
    for (std::uint64_t i = 0; i < 16; ++i)
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min<std::uint64_t>(bits + i * step, last)));
    f(x, y);
    for (int i = 0; i < 16; ++i) body(x[i], y[i]);
  }
}

// The distance from a normal float to the next larger one.
double ulp(double value) {
  return std::ldexp(1.0, std::ilogb(value) - 23);
}

TEST(Exp16, IsWithinTwoUlp) {
  for_each_target([] {
    const auto exp16 = [](const float* x, float* y) { HWY_DYNAMIC_DISPATCH(exp_array)(x, y); };
    double worst = 0;
    float at = 0;
    const auto check = [&](float x, float y) {
      const double exact = std::exp(static_cast<double>(x));
      const double error = std::abs(y - exact) / ulp(exact);
      if (error > worst) worst = error, at = x;
    };
    sweep(0.0f, 88.0f, 997, exp16, check);  // subnormal arguments too
    sweep(-0.0f, -87.0f, 997, exp16, check);
    sweep(1.0f, 1.01f, 1, exp16, check);
    sweep(80.0f, 88.0f, 61, exp16, check);
    sweep(-80.0f, -87.0f, 61, exp16, check);
    EXPECT_LE(worst, 2.0) << "at " << at;
  });
}

TEST(Tanh16, IsWithinFourUlp) {
  for_each_target([] {
    const auto tanh16 = [](const float* x, float* y) { HWY_DYNAMIC_DISPATCH(tanh_array)(x, y); };
    constexpr float kLeast = std::numeric_limits<float>::min();
    double worst = 0;
    float at = 0;
    const auto check = [&](float x, float y) {
      const double exact = std::tanh(static_cast<double>(x)), error = std::abs(y - exact) / ulp(exact);
      if (error > worst) worst = error, at = x;
      if (std::abs(y) > 1) worst = kInfinity, at = x;
    };
    sweep(kLeast, 100.0f, 997, tanh16, check);
    sweep(-kLeast, -100.0f, 997, tanh16, check);
    sweep(0.5f, 0.6f, 1, tanh16, check);  // where the two ways meet
    EXPECT_LE(worst, 4.0) << "at " << at;
  });
}

TEST(Tanh16, EndsExactly) {
  for_each_target([] {
    const float least = std::numeric_limits<float>::denorm_min(), nan = std::nanf("");
    const float x[16] = {0.0f,  -0.0f,  least,     -least,     10.0f, -10.0f, 44.0f, -44.0f,
                         1e30f, -1e30f, kInfinity, -kInfinity, nan,   -nan,   20.0f, -20.0f};
    const float expected[16] = {0.0f, -0.0f, least, -least, 1, -1, 1, -1, 1, -1, 1, -1, nan, nan, 1, -1};
    float y[16];
    HWY_DYNAMIC_DISPATCH(tanh_array)(x, y);
    for (int i = 0; i < 16; ++i) {
      if (std::isnan(expected[i])) {
        EXPECT_TRUE(std::isnan(y[i])) << x[i];
        continue;
      }
      EXPECT_EQ(y[i], expected[i]) << x[i];
      EXPECT_EQ(std::signbit(y[i]), std::signbit(x[i])) << x[i];
    }
  });
}

// tests/kernels/gemm_test.cc derives the bound.
TEST(GeluTanh16, IsWithinSevenRoundingsOfItsArgument) {
  for_each_target([] {
    const auto gelu = [](const float* x, float* y) { HWY_DYNAMIC_DISPATCH(gelu_tanh_array)(x, y); };
    double worst = 0;
    float at = 0;
    const auto check = [&](float x, float y) {
      const double error = std::abs(y - ref::activate(Activation::kGeluTanh, x)) / std::abs(x) * 0x1p24;
      if (error > worst) worst = error, at = x;
    };
    sweep(1e-30f, 50.0f, 997, gelu, check);
    sweep(-1e-30f, -50.0f, 997, gelu, check);
    EXPECT_LE(worst, 7.0) << "at " << at;
  });
}

TEST(Activations16, EndExactly) {
  for_each_target([] {
    const float nan = std::nanf("");
    const float x[16] = {0.0f, -0.0f, 30.0f, -30.0f, 1e18f, -1e18f, 1e19f,  -1e19f,
                         3.0f, -3.0f, 0.5f,  -0.5f,  nan,   -nan,   1e-30f, -1e-30f};
    float gelu[16], relu2[16];
    HWY_DYNAMIC_DISPATCH(gelu_tanh_array)(x, gelu);
    HWY_DYNAMIC_DISPATCH(relu2_array)(x, relu2);
    for (int i = 0; i < 16; ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(gelu[i]) && std::isnan(relu2[i]));
        continue;
      }
      EXPECT_EQ(relu2[i], x[i] > 0 ? x[i] * x[i] : 0.0f) << x[i];
      const bool at_an_end = x[i] == 0 || std::abs(x[i]) >= 30;
      EXPECT_TRUE(!at_an_end || gelu[i] == (x[i] > 0 ? x[i] : 0.0f)) << x[i];
    }
  });
}

TEST(Exp16, EndsExactly) {
  for_each_target([] {
    const float x[16] = {0.0f,
                         -0.0f,
                         std::numeric_limits<float>::denorm_min(),
                         -std::numeric_limits<float>::denorm_min(),
                         std::nextafter(-87.0f, -kInfinity),
                         -88.0f,
                         -103.5f,
                         -1e30f,
                         std::numeric_limits<float>::lowest(),
                         -kInfinity,
                         std::nextafter(88.0f, kInfinity),
                         89.0f,
                         1e30f,
                         std::numeric_limits<float>::max(),
                         kInfinity,
                         std::numeric_limits<float>::quiet_NaN()};
    float y[16];
    HWY_DYNAMIC_DISPATCH(exp_array)(x, y);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(y[i], 1.0f) << x[i];
    for (int i = 4; i < 10; ++i) EXPECT_EQ(std::bit_cast<std::uint32_t>(y[i]), 0u) << x[i];
    for (int i = 10; i < 15; ++i) EXPECT_EQ(y[i], kInfinity) << x[i];
    EXPECT_TRUE(std::isnan(y[15]));
  });
}

// e^-x within 2 ulp is a relative 4 u at most; the sum and the quotient are rounded once each. Past 88, e^-x is
// infinite and the result 0, off by no more than 88 e^-88.
TEST(Silu16, IsWithinSixRoundings) {
  for_each_target([] {
    const auto silu16 = [](const float* x, float* y) { HWY_DYNAMIC_DISPATCH(silu_array)(x, y); };
    const double bound = 6 * 0x1.0p-24 / (1 - 6 * 0x1.0p-24);
    const auto check = [&](float x, float y) {
      const double exact = ref::silu(x);
      ASSERT_NEAR(y, exact, bound * std::abs(exact) + (x < -88 ? 88 * std::exp(-88.0) : 0)) << x;
    };
    sweep(0x1p-100f, 1e30f, 4999, silu16, check);
    sweep(-0x1p-100f, -1e30f, 4999, silu16, check);
    const float zeros[16] = {};
    float y[16];
    silu16(zeros, y);
    EXPECT_EQ(y[0], 0.0f);
  });
}

// Lanes do not know of each other, nor of the instruction set.
TEST(Math16, BitsAreThoseOfEveryLaneAndTarget) {
  std::vector<float> first;
  for_each_target([&] {
    std::vector<float> results;
    for (int i = 0; i < 20000; ++i) {
      const float value = static_cast<float>(i) * 0.00917f - 91.0f;
      float x[16] = {}, together[16], moved[16];
      x[i % 16] = value;
      HWY_DYNAMIC_DISPATCH(exp_array)(x, together);
      std::swap(x[i % 16], x[(i + 5) % 16]);
      HWY_DYNAMIC_DISPATCH(exp_array)(x, moved);
      ASSERT_EQ(together[i % 16], moved[(i + 5) % 16]) << value;
      results.push_back(together[i % 16]);
      HWY_DYNAMIC_DISPATCH(silu_array)(x, moved);
      results.push_back(moved[(i + 5) % 16]);
    }
    if (first.empty()) first = results;
    ASSERT_EQ(results, first);
  });
}

}  // namespace
}  // namespace foe
#endif
