#include "kernels/rows/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kernels/each_target.h"

namespace foe {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<Candidate> sorted(const std::vector<float>& logits, std::int32_t first) {
  std::vector<Candidate> all;
  for (const float x : logits) all.push_back({first++, std::isnan(x) ? -kInf : x});
  std::sort(all.begin(), all.end(), more_likely);
  return all;
}

// Rows in every order that a selection could stumble over.
std::vector<std::vector<float>> rows(int n) {
  std::vector<float> random(n), ties(n), holes(n);
  for (int i = 0; i < n; ++i) {
    random[i] = static_cast<float>(random_normal(n, i));
    ties[i] = static_cast<float>(random_bits(n, i) % 3);
    holes[i] = i % 3 == 0 ? kNan : i % 3 == 1 ? -kInf : i % 7 == 0 ? kInf : random[i];
  }
  std::vector<float> ascending = random, descending;
  std::sort(ascending.begin(), ascending.end());
  descending.assign(ascending.rbegin(), ascending.rend());
  return {random,
          ties,
          holes,
          ascending,
          descending,
          std::vector<float>(n, kNan),
          std::vector<float>(n, -kInf),
          std::vector<float>(n, -0.0f)};
}

TEST(Candidates, AreTheFirstOfTheSortedRow) {
  for_each_target([] {
    for (const int n : {1, 2, 15, 16, 17, 31, 32, 33, 100, 1000})
      for (const std::vector<float>& logits : rows(n)) {
        const std::vector<Candidate> expected = sorted(logits, 5);
        EXPECT_EQ(largest_logit(logits), expected.front().logit);
        for (const int k : {1, 2, 7, 40, 64, 999, 1001}) {
          std::vector<Candidate> got{{-1, 99.0f}};
          append_most_likely(logits, k, 5, got);
          ASSERT_EQ(got.size(), 1u + std::min(k, n));
          EXPECT_EQ(got[0].token, -1);
          for (std::size_t i = 1; i < got.size(); ++i) {
            ASSERT_EQ(got[i].token, expected[i - 1].token) << k << " of " << n;
            ASSERT_EQ(got[i].logit, expected[i - 1].logit);
          }
        }
      }
  });
}

TEST(Candidates, OfNothingThereAreNone) {
  std::vector<Candidate> none;
  append_most_likely({}, 3, 0, none);
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(largest_logit({}), -kInf);
}

TEST(Candidates, WeightsAreExponentialsAndDoNotDependOnTheRow) {
  for_each_target([] {
    for (const int n : {1, 16, 37}) {
      std::vector<float> logits(n), weights(n), alone(1);
      for (int i = 0; i < n; ++i) logits[i] = -static_cast<float>(random_unit(1, i)) * 9;
      softmax_weights(logits, 0.5f, 0.7f, 1e-5f, weights.data());
      for (int i = 0; i < n; ++i) {
        const double exact = std::exp((logits[i] - 0.5) / 0.7);
        // The argument, at most 14, is rounded twice; the exponential is within 2 ulp.
        EXPECT_NEAR(weights[i], exact < 1e-5 ? 0 : exact, exact * (28 + 4) * 0x1.0p-24) << logits[i];
        softmax_weights({&logits[i], 1}, 0.5f, 0.7f, 1e-5f, alone.data());
        EXPECT_EQ(alone[0], weights[i]);
      }
    }
  });
}

TEST(Candidates, WeightsOfWhatIsNotFiniteAreZero) {
  const std::vector<float> logits{kNan, -kInf, 2.0f, 1.0f};
  std::vector<float> weights(4);
  softmax_weights(logits, 2.0f, 1e-30f, 0.0f, weights.data());  // so cold that only the largest is left
  EXPECT_EQ(weights, (std::vector<float>{0, 0, 1, 0}));
  softmax_weights(std::vector<float>{kInf, 1, 2, kNan}, kInf, 1.0f, 0.0f, weights.data());
  EXPECT_EQ(weights, std::vector<float>(4));
  softmax_weights(std::vector<float>(4, -kInf), -kInf, 1.0f, 0.0f, weights.data());
  EXPECT_EQ(weights, std::vector<float>(4));
}

}  // namespace
}  // namespace foe
