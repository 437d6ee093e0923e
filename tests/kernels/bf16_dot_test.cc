#include "kernels/targets.h"  // before any Highway header

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bf16_dot_test.cc"
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/foreach_target.h>

#include "bf16_order.h"
#include "each_target.h"
#include "kernels/products/amx.h"
#include "kernels/products/bf16_dot-inl.h"
#include "kernels/products/flush_subnormals.h"
#include "numerics.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// sums[0..16) += x [2 pairs] times lines of pairs, 16 at a time, whole registers or one at a time.
HWY_NOINLINE void multiply_lines(const float* x, const BF16* lines, int count, float* sums) {
  V16 sum = load16(sums);
  for (int begin = 0; begin < count; begin += kDotLines) {
    Chains<V16> chains = begin_chains16();
    for (int i = begin; i < std::min(count, begin + kDotLines); ++i) {
      const BF16* line = lines + i * kPairLine;
      extend(chains, set16(x[2 * i]), set16(x[2 * i + 1]), load_even(line), load_odd(line));
    }
    sum = take(sum, chains);
  }
  store16(sum, sums);
}
HWY_NOINLINE void multiply_parts(const float* x, const BF16* lines, int count, float* sums) {
  for (int v = 0; v < kVecs; ++v) {
    VF sum = hn::LoadU(DF(), sums + v * kVecLanes);
    for (int begin = 0; begin < count; begin += kDotLines) {
      Chains<VF> chains = begin_chains();
      for (int i = begin; i < std::min(count, begin + kDotLines); ++i) {
        const BF16* line = lines + i * kPairLine;
        extend(chains, hn::Set(DF(), x[2 * i]), hn::Set(DF(), x[2 * i + 1]), load_even(line, v), load_odd(line, v));
      }
      sum = take(sum, chains);
    }
    hn::StoreU(sum, DF(), sums + v * kVecLanes);
  }
}

HWY_NOINLINE void round16(const float* x, float* y) {
  store16(round_to_bf16(load16(x)), y);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(multiply_lines);
HWY_EXPORT(multiply_parts);
HWY_EXPORT(round16);

// Sixteen rows of x and sixteen outputs of w, numbers of bf16, random in their exponents, too.
struct Operands {
  int depth;
  std::vector<float> x, sums;  // [row][depth], [row][16]
  std::vector<BF16> lines;     // [depth / 2][16][2]

  Operands(int depth_, int exponent, int spread, std::uint64_t seed)
      : depth(depth_), x(16 * depth_), sums(16 * 16), lines(16 * depth_) {
    const auto random = [&](std::uint64_t of, std::size_t i) {
      const int e = exponent + static_cast<int>(random_bits(seed + of + 1, i) % (2 * spread + 1)) - spread;
      return to_bf16(std::ldexp(static_cast<float>(random_normal(seed + of, i)), e));
    };
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = to_float(random(10, i));
    for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = random(20, i);
    for (std::size_t i = 0; i < sums.size(); ++i)
      sums[i] = i % 3 == 0 ? 0 : std::ldexp(static_cast<float>(random_normal(seed, i)), 2 * exponent);
  }

  std::vector<float> expected() const {
    std::vector<float> y(sums);
    for (int row = 0; row < 16; ++row)
      for (int n = 0; n < 16; ++n)
        y[row * 16 + n] = dot_in_bf16_order(
            flushed(y[row * 16 + n]), depth, [&](int k) { return x[row * depth + k]; },
            [&](int k) { return to_float(lines[(k / 2 * 16 + n) * 2 + k % 2]); });
    return y;
  }

  // Which also tells zeros apart.
  static std::vector<std::uint32_t> bits(const std::vector<float>& y) {
    std::vector<std::uint32_t> all;
    for (const float value : y) all.push_back(std::bit_cast<std::uint32_t>(value));
    return all;
  }
};

constexpr int kDepth = 32;  // of a tile

// Ordinary numbers, and some whose products and sums are around the smallest normal number, or which are below it
// themselves.
std::vector<Operands> all_operands() {
  std::vector<Operands> all;
  for (const int depth : {2, 6, 32, 34, 64, 96, 160})
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      all.emplace_back(depth, 0, 3, 100 * seed);
      all.emplace_back(depth, -63, 6, 100 * seed + 30);
      all.emplace_back(depth, -126, 3, 100 * seed + 60);
    }
  return all;
}

TEST(Bf16Dot, TakesTheOrderOnEveryTarget) {
  for (const Operands& o : all_operands()) {
    const std::vector<float> expected = o.expected();
    for_each_target([&] {
      std::vector<float> whole = o.sums, parts = o.sums;
      const FlushSubnormals flush;
      for (int row = 0; row < 16; ++row) {
        const float* x = o.x.data() + row * o.depth;
        HWY_DYNAMIC_DISPATCH(multiply_lines)(x, o.lines.data(), o.depth / 2, whole.data() + row * 16);
        HWY_DYNAMIC_DISPATCH(multiply_parts)(x, o.lines.data(), o.depth / 2, parts.data() + row * 16);
      }
      ASSERT_EQ(whole, expected) << o.depth;
      ASSERT_EQ(parts, expected) << o.depth;
      if (o.depth % kDepth != 0) return;  // without zeros in the missing places, zeros may have another sign
      ASSERT_EQ(Operands::bits(whole), Operands::bits(expected)) << o.depth;
      ASSERT_EQ(Operands::bits(parts), Operands::bits(expected)) << o.depth;
    });
  }
}

#if defined(__x86_64__)
TEST(Bf16Dot, IsTheOrderOfTiles) {
  if (!tiles()) GTEST_SKIP() << "no tiles here";
  for (const Operands& o : all_operands()) {
    std::vector<float> y = o.sums;
    const amx::Tiles registers;
    amx::load<0>(y.data());
    for (int begin = 0; begin < o.depth; begin += kDepth) {
      alignas(64) BF16 a[16][32] = {}, b[16][32] = {};
      for (int row = 0; row < 16; ++row)
        for (int k = begin; k < std::min(o.depth, begin + kDepth); ++k) {
          a[row][k - begin] = to_bf16(o.x[row * o.depth + k]);
          b[(k - begin) / 2][2 * row + k % 2] = o.lines[(k / 2 * 16 + row) * 2 + k % 2];
        }
      amx::load<1>(a);
      amx::load<2>(b);
      amx::multiply_bf16<0, 1, 2>();
    }
    amx::store<0>(y.data());
    ASSERT_EQ(Operands::bits(y), Operands::bits(o.expected())) << o.depth;
  }
}
#endif

TEST(Bf16Dot, RoundsToTheNearest) {
  for_each_target([] {
    for (int seed = 0; seed < 200; ++seed) {
      std::vector<float> x = random_values(16, seed), y(16);
      x[0] = std::bit_cast<float>(0x3f808000u);  // half-way, to even
      x[1] = std::bit_cast<float>(0x3f818000u);
      x[2] = std::numeric_limits<float>::infinity();
      x[3] = std::numeric_limits<float>::max();
      x[4] = std::numeric_limits<float>::denorm_min() * 77777;
      x[5] = std::bit_cast<float>(0x7f7f0001u + static_cast<std::uint32_t>(seed));
      HWY_DYNAMIC_DISPATCH(round16)(x.data(), y.data());
      for (int i = 0; i < 16; ++i) ASSERT_EQ(y[i], to_float(to_bf16(x[i]))) << x[i];
      x[0] = std::bit_cast<float>(0x7fffffffu);
      HWY_DYNAMIC_DISPATCH(round16)(x.data(), y.data());
      ASSERT_TRUE(std::isnan(y[0]));
    }
  });
}

TEST(FlushSubnormals, HoldsWhileItLives) {
  volatile float half = 0.5f, least = std::numeric_limits<float>::min(), subnormal = least * half;
  const auto product = [&] { return static_cast<float>(least * half); };
  const auto widened = [&] { return static_cast<float>(subnormal * 0x1p100f); };
  EXPECT_GT(product(), 0);
  {
    const FlushSubnormals flush;
    const volatile float result = product(), taken = widened();
    EXPECT_EQ(result, 0);
    EXPECT_EQ(taken, 0);
  }
  EXPECT_GT(product(), 0);
  EXPECT_GT(widened(), 0);
}

}  // namespace
}  // namespace foe
#endif
