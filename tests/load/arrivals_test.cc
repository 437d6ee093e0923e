#include "load/arrivals.h"

#include <cmath>
#include <limits>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/draws.h"

namespace foe {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::Ge;

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Moments {
  double mean = 0, variance = 0;
};
Moments moments(const std::vector<double>& values) {
  Moments m;
  const auto n = static_cast<double>(values.size());
  m.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  for (const double v : values) m.variance += (v - m.mean) * (v - m.mean) / n;
  return m;
}

TEST(Draws, GammaHasItsMoments) {
  constexpr int kN = 20000;
  for (const double k : {0.25, 0.5, 1.0, 2.0, 20.0}) {
    Draws draws(1, DrawsFor::kArrivals);
    std::vector<double> values(kN);
    for (double& v : values) v = draws.gamma(k);
    EXPECT_THAT(values, Each(Ge(0)));
    const Moments m = moments(values);
    // Mean and variance are k, and the fourth central moment 3k^2 + 6k. Five standard errors of each.
    EXPECT_NEAR(m.mean, k, 5 * std::sqrt(k / kN)) << k;
    EXPECT_NEAR(m.variance, k, 5 * std::sqrt((3 * k * k + 6 * k - k * k) / kN)) << k;
  }
}

TEST(Draws, IntegersFillTheirRange) {
  Draws draws(1, DrawsFor::kTokens);
  std::vector<int> counts(4);
  for (int i = 0; i < 4000; ++i) ++counts.at(draws.between(-2, 1) + 2);
  for (const int count : counts) EXPECT_NEAR(count, 1000, 5 * std::sqrt(4000 * 0.25 * 0.75));
  EXPECT_EQ(draws.between(7, 7), 7);
}

std::vector<double> at_rate(std::size_t n, double rate, std::uint64_t seed) {
  return arrival_times(std::vector<double>(n, rate), 1, seed);
}

TEST(Arrivals, FollowFromTheSeed) {
  const std::vector<double> times = at_rate(1000, 4, 9);
  EXPECT_EQ(times, at_rate(1000, 4, 9));
  EXPECT_NE(times, at_rate(1000, 4, 10));
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_EQ(times.front(), 0);
  // The same pattern at any rate, so that the runs of a sweep differ in nothing else; a power of two is exact.
  const std::vector<double> slower = at_rate(1000, 2, 9);
  for (std::size_t i = 0; i < times.size(); ++i) ASSERT_EQ(slower[i], 2 * times[i]);
  EXPECT_THAT(at_rate(3, kInf, 9), ElementsAre(0, 0, 0));
  EXPECT_THAT(at_rate(1, 5, 9), ElementsAre(0));
  EXPECT_THAT(at_rate(0, 5, 9), ElementsAre());
}

TEST(Arrivals, GapsHaveTheRateAndTheBurstiness) {
  constexpr int kN = 20000;
  for (const double burstiness : {0.5, 1.0, 4.0}) {
    std::vector<double> gaps = arrival_times(std::vector<double>(kN + 1, 5), burstiness, 3);
    std::adjacent_difference(gaps.begin(), gaps.end(), gaps.begin());
    gaps.erase(gaps.begin());
    // A gap's mean is 1/5, its standard deviation that over the root of the shape.
    const Moments m = moments(gaps);
    const double sigma = 0.2 / std::sqrt(burstiness);
    EXPECT_NEAR(m.mean, 0.2, 5 * sigma / std::sqrt(kN)) << burstiness;
    EXPECT_NEAR(m.variance, sigma * sigma, 5 * sigma * sigma * std::sqrt((2 + 6 / burstiness) / kN)) << burstiness;
  }
}

TEST(Arrivals, FollowAGrowingRate) {
  const std::vector<double> even = at_rate(5, 1, 3), grown = arrival_times({1, 2, 4, 8, 16}, 1, 3);
  double rate = 1;  // each gap is that at rate 1, over its own rate
  for (std::size_t i = 1; i < even.size(); ++i) {
    rate *= 2;
    EXPECT_NEAR(grown[i] - grown[i - 1], (even[i] - even[i - 1]) / rate, 1e-12);
  }
}

TEST(RampUp, GoesFromTheFirstRateToTheLast) {
  EXPECT_THAT(ramp_up_rates({"linear", 1, 9}, 5), ElementsAre(1, 3, 5, 7, 9));
  EXPECT_THAT(ramp_up_rates({"exponential", 1, 16}, 5), ElementsAre(1, 2, 4, 8, 16));
  EXPECT_THAT(ramp_up_rates({"linear", 2, 2}, 3), Each(2));
  EXPECT_THAT(ramp_up_rates({"exponential", 3, 5}, 1), ElementsAre(3));
  EXPECT_THAT(ramp_up_rates({"linear", 3, 5}, 0), ElementsAre());
}

MATCHER_P2(ChangeIs, rps, request, "") {
  return arg.rps == rps && arg.request == static_cast<std::size_t>(request);
}

TEST(RateChanges, NameEachWholeNumber) {
  EXPECT_THAT(rate_changes({1, 1.9, 2, 4.5, 4.6, 5}),
              ElementsAre(ChangeIs(1, 0), ChangeIs(2, 2), ChangeIs(3, 3), ChangeIs(4, 3), ChangeIs(5, 5)));
  EXPECT_THAT(rate_changes({0.5}), ElementsAre(ChangeIs(0, 0)));
  EXPECT_THAT(rate_changes({}), ElementsAre());
}

}  // namespace
}  // namespace foe
