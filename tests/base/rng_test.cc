#include "base/rng.h"

#include <array>
#include <bit>
#include <cmath>

#include <gtest/gtest.h>

namespace foe {
namespace {

TEST(Rng, MixIsSplitMix64) {
  // The first outputs of SplitMix64 seeded with 0: its state is the golden ratio, twice it, and so on.
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ull;
  static_assert(mix64(kGolden) == 0xe220a8397b1dcdafull);
  static_assert(mix64(2 * kGolden) == 0x6e789e6aa1b965f4ull);
}

TEST(Rng, IsAFunctionOfSeedAndCounter) {
  static_assert(random_bits(1, 2) == random_bits(1, 2));
  EXPECT_NE(random_bits(1, 2), random_bits(2, 1));
  EXPECT_NE(random_bits(0, 0), random_bits(0, 1));
  EXPECT_NE(random_bits(0, 0), random_bits(1, 0));
  EXPECT_EQ(random_normal(3, 4), random_normal(3, 4));
}

// n draws into 256 buckets: the statistic has mean 255 and standard deviation sqrt(510). The numbers are fixed, so the
// test cannot fail by chance.
TEST(Rng, IsRoughlyUniformOverCountersAndSeeds) {
  constexpr int kDraws = 1 << 18;
  for (const bool over_seeds : {false, true})
    for (const int shift : {56, 11}) {  // the highest bits, and the lowest that random_unit uses
      std::array<int, 256> buckets{};
      for (std::uint64_t i = 0; i < kDraws; ++i)
        ++buckets[(over_seeds ? random_bits(i, 7) : random_bits(7, i)) >> shift & 255];
      double statistic = 0;
      for (const int n : buckets) statistic += std::pow(n - kDraws / 256.0, 2) / (kDraws / 256.0);
      EXPECT_NEAR(statistic, 255, 5 * std::sqrt(510.0)) << (over_seeds ? "seeds" : "counters") << ", bit " << shift;
    }
}

TEST(Rng, ABitOfTheInputChangesHalfOfTheOutput) {
  constexpr int kTrials = 4096;
  for (const bool of_seed : {false, true}) {
    double flipped = 0;
    for (std::uint64_t i = 0; i < kTrials; ++i) {
      const std::uint64_t bit = std::uint64_t{1} << i % 64;
      flipped += std::popcount(random_bits(i, i) ^ (of_seed ? random_bits(i ^ bit, i) : random_bits(i, i ^ bit)));
    }
    // 64 coins, thrown 4096 times: a mean of 32 with a standard deviation of 4 / 64.
    EXPECT_NEAR(flipped / kTrials, 32, 5 * 4 / 64.0);
  }
}

TEST(Rng, UnitIsInItsInterval) {
  double sum = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random_unit(9, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
}

TEST(Rng, NormalHasItsMoments) {
  constexpr int kDraws = 100000;
  double moments[5] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double x = random_normal(5, i);
    ASSERT_TRUE(std::isfinite(x));
    for (int p = 1; p <= 4; ++p) moments[p] += std::pow(x, p) / kDraws;
  }
  // The variance of x^p is E x^2p - (E x^p)^2: 1, 2, 15, 96.
  EXPECT_NEAR(moments[1], 0, 5 * std::sqrt(1.0 / kDraws));
  EXPECT_NEAR(moments[2], 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(moments[3], 0, 5 * std::sqrt(15.0 / kDraws));
  EXPECT_NEAR(moments[4], 3, 5 * std::sqrt(96.0 / kDraws));
}

}  // namespace
}  // namespace foe
