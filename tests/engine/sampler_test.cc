#include "engine/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

const std::vector<float> kLogits{0.0f, 2.0f, 1.0f, 2.0f, -1.0f};

std::map<std::int32_t, int> draw(SamplingParams params, int count) {
  std::map<std::int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[sample(kLogits, params, i)];
  return seen;
}

TEST(Sampler, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(sample(kLogits, {}, 0), 1);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  const int n = 40000;
  const auto seen = draw({.temperature = 1.5f, .seed = 3}, n);
  double total = 0;
  for (const float x : kLogits) total += std::exp(x / 1.5);
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    const double p = std::exp(kLogits[i] / 1.5) / total;
    EXPECT_NEAR(seen.at(static_cast<int>(i)) / static_cast<double>(n), p, 5 * std::sqrt(p * (1 - p) / n)) << i;
  }
}

TEST(Sampler, FiltersKeepTheMostLikely) {
  const auto tokens = [](SamplingParams p) {
    std::vector<std::int32_t> ids;
    for (const auto& [id, count] : draw(p, 3000)) ids.push_back(id);
    return ids;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 1}), Ids{1});
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 3}), (Ids{1, 2, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 100}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(tokens({.temperature = 1, .top_p = 0.01f}), Ids{1});
  EXPECT_EQ(tokens({.temperature = 1, .top_p = 0.6f}), (Ids{1, 3}));  // 0.397 each, then 0.146
  EXPECT_EQ(tokens({.temperature = 1, .min_p = 0.5f}), (Ids{1, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .min_p = 0.3f}), (Ids{1, 2, 3}));
}

TEST(Sampler, IsAFunctionOfSeedAndPosition) {
  const SamplingParams p{.temperature = 2, .seed = 11};
  std::vector<std::int32_t> first, second, other;
  for (int i = 0; i < 200; ++i) {
    first.push_back(sample(kLogits, p, i));
    second.push_back(sample(kLogits, p, i));
    other.push_back(sample(kLogits, {.temperature = 2, .seed = 12}, i));
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

TEST(Sampler, SurvivesLogitsThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits : {std::vector<float>{nan, nan}, {inf, inf}, {-inf, -inf}, {-inf, 1.0f}}) {
    const std::int32_t token = sample(logits, {.temperature = 1}, 0);
    EXPECT_TRUE(token == 0 || token == 1);
  }
}

TEST(Sampler, ValidationNamesTheFieldAndItsRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto message = [](SamplingParams p) {
    try {
      validate(p);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message({}), "accepted");
  for (const float t : {-0.1f, 101.0f, nan})
    EXPECT_THAT(message({.temperature = t}), testing::StartsWith("temperature: expected 0 to 100, got"));
  for (const float p : {0.0f, 1.1f, nan})
    EXPECT_THAT(message({.top_p = p}), testing::StartsWith("top_p: expected more than 0 and at most 1, got"));
  EXPECT_THAT(message({.top_k = -1}), testing::StartsWith("top_k: expected 0 (all) or more, got -1"));
  for (const float p : {-0.1f, 1.1f, nan})
    EXPECT_THAT(message({.min_p = p}), testing::StartsWith("min_p: expected 0 to 1, got"));
}

}  // namespace
}  // namespace foe
