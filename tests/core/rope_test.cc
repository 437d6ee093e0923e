#include "core/rope.h"

#include <cmath>
#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::HasSubstr;

constexpr double kTheta = 10000;
constexpr int kWidth = 16;

Rotation with_scaling(const RopeScaling& scaling) {
  return {.theta = kTheta, .width = kWidth, .scaling = scaling};
}

double plain(int i) {
  return std::pow(kTheta, -2.0 * i / kWidth);
}

RopeScaling llama3() {
  return {.type = RopeType::kLlama3, .factor = 8, .original_positions = 512};
}

RopeScaling longrope() {
  RopeScaling s{.type = RopeType::kLongRope, .factor = 4, .original_positions = 64};
  for (int i = 0; i < kWidth / 2; ++i) {
    s.short_factor.push_back(1 + i);
    s.long_factor.push_back(10 + i);
  }
  return s;
}

TEST(Rope, PlainFrequenciesAreThosePublished) {
  const RopeFrequencies f = rope_frequencies(with_scaling({}));
  EXPECT_EQ(f.inverse.size(), kWidth / 2);
  for (int i = 0; i < kWidth / 2; ++i) EXPECT_EQ(f.inverse[i], plain(i));
  EXPECT_EQ(f.factor, 1);
  EXPECT_TRUE(rope_frequencies(Rotation{}).inverse.empty());
}

// Pairs that turn more than four times in a text of the training stay, those that turn less than once slow down.
TEST(Rope, Llama3ChangesLowFrequenciesAlone) {
  const RopeFrequencies f = rope_frequencies(with_scaling(llama3()));
  int kept = 0, between = 0, slowed = 0;
  for (int i = 0; i < kWidth / 2; ++i) {
    const double turns = 512 * plain(i) / (2 * std::numbers::pi);
    if (turns >= 4) {
      EXPECT_EQ(f.inverse[i], plain(i)) << i;
      ++kept;
    } else if (turns <= 1) {
      EXPECT_DOUBLE_EQ(f.inverse[i], plain(i) / 8) << i;
      ++slowed;
    } else {
      const double smooth = (turns - 1) / 3;
      EXPECT_DOUBLE_EQ(f.inverse[i], (1 - smooth) * plain(i) / 8 + smooth * plain(i)) << i;
      ++between;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(between, 0);
  EXPECT_GT(slowed, 0);
  EXPECT_EQ(f.factor, 1);
}

TEST(Rope, YarnHasATemperature) {
  RopeScaling s{.type = RopeType::kYarn, .factor = 16, .original_positions = 512};
  const RopeFrequencies f = rope_frequencies(with_scaling(s));
  EXPECT_EQ(f.inverse.front(), 1);
  EXPECT_DOUBLE_EQ(f.inverse.back(), plain(7) / 16);
  EXPECT_DOUBLE_EQ(f.factor, 0.1 * std::log(16.0) + 1);
  s.mscale = 0.5;
  EXPECT_DOUBLE_EQ(rope_frequencies(with_scaling(s)).factor, 0.1 * std::log(16.0) + 1);  // both, or none
  s.mscale_all_dim = 2;
  EXPECT_DOUBLE_EQ(rope_frequencies(with_scaling(s)).factor, (0.05 * std::log(16.0) + 1) / (0.2 * std::log(16.0) + 1));
  s.attention_factor = 1.5;
  EXPECT_EQ(rope_frequencies(with_scaling(s)).factor, 1.5);
  s.truncate = false;
  EXPECT_NE(rope_frequencies(with_scaling(s)).inverse, f.inverse);
}

TEST(Rope, DynamicAndLongRopeGoByTheLengthOfTheText) {
  const RopeScaling dynamic{.type = RopeType::kDynamic, .factor = 2, .original_positions = 100};
  EXPECT_EQ(rope_frequencies(with_scaling(dynamic), 100).inverse, rope_frequencies(with_scaling({})).inverse);
  const double base = kTheta * std::pow(2 * 300 / 100.0 - 1, 16.0 / 14);
  EXPECT_DOUBLE_EQ(rope_frequencies(with_scaling(dynamic), 300).inverse[3], std::pow(base, -6.0 / 16));
  const RopeFrequencies near = rope_frequencies(with_scaling(longrope()), 64);
  const RopeFrequencies far = rope_frequencies(with_scaling(longrope()), 65);
  EXPECT_EQ(near.inverse, rope_frequencies(with_scaling(longrope())).inverse);
  EXPECT_DOUBLE_EQ(near.inverse[2], plain(2) / 3);
  EXPECT_DOUBLE_EQ(far.inverse[2], plain(2) / 12);
  EXPECT_DOUBLE_EQ(far.factor, std::sqrt(1 + std::log(4.0) / std::log(64.0)));
  EXPECT_EQ(near.factor, far.factor);
}

// In f32 each step is rounded, as in transformers; positions are divided by way of the frequencies.
TEST(Rope, FrequenciesInF32) {
  Rotation r = with_scaling({});
  r.factor = 3;
  EXPECT_EQ(rope_frequencies(r).stretch, 3);
  r.f32 = true;
  const RopeFrequencies f = rope_frequencies(r);
  EXPECT_EQ(f.stretch, 1);
  EXPECT_TRUE(f.f32);
  for (int i = 0; i < kWidth / 2; ++i) {
    const float power = static_cast<float>(std::pow(kTheta, static_cast<double>(2.0f * i / kWidth)));
    EXPECT_EQ(f.inverse[i], 1 / power / 3.0f) << i;
  }
  for (const RopeScaling& s :
       {llama3(), longrope(), RopeScaling{.type = RopeType::kYarn, .factor = 4, .original_positions = 64},
        RopeScaling{.type = RopeType::kDynamic, .factor = 4, .original_positions = 64}}) {
    r = with_scaling(s);
    const std::vector<double> exact = rope_frequencies(r, 1000).inverse;
    r.f32 = true;
    const std::vector<double> rounded = rope_frequencies(r, 1000).inverse;
    for (int i = 0; i < kWidth / 2; ++i) EXPECT_NEAR(rounded[i], exact[i], 20 * 6e-8 * exact[i]) << to_string(s.type);
  }
}

TEST(Rope, RefusesNumbersWithoutFrequencies) {
  const auto error = [](const RopeScaling& s, double theta = kTheta, int width = kWidth) -> std::string {
    try {
      validate(s, theta, width, "rope_scaling.");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error({}), "");
  EXPECT_EQ(error(llama3()), "");
  EXPECT_EQ(error(longrope()), "");
  RopeScaling s = llama3();
  s.factor = 0.5;
  EXPECT_THAT(error(s), HasSubstr("rope_scaling.factor: expected a finite number of at least 1, got 0.5"));
  s = llama3();
  s.high_freq_factor = 1;
  EXPECT_THAT(error(s), HasSubstr("high_freq_factor: expected a finite number above low_freq_factor = 1, got 1"));
  s = llama3();
  s.original_positions = 0;
  EXPECT_THAT(error(s), HasSubstr("original_max_position_embeddings: expected at least 1, got 0"));
  s = longrope();
  s.long_factor.pop_back();
  EXPECT_THAT(error(s),
              HasSubstr("long_factor: expected 8 numbers, half of the 16 rotating elements of a head, got 7"));
  s = longrope();
  s.short_factor[3] = 0;
  EXPECT_THAT(error(s), HasSubstr("short_factor: expected a finite number above 0, got 0"));
  s = {.type = RopeType::kYarn, .factor = 2, .original_positions = 8, .beta_fast = 1, .beta_slow = 2};
  EXPECT_THAT(error(s), HasSubstr("beta_fast: expected a finite number of at least beta_slow = 2, got 1"));
  s = {.type = RopeType::kYarn, .factor = 2, .original_positions = 8};
  EXPECT_THAT(error(s, 1), HasSubstr("rope_theta: expected a number above 1 with yarn, got 1"));
  s = {.type = RopeType::kDynamic, .factor = 2, .original_positions = 8};
  EXPECT_THAT(error(s, kTheta, 2), HasSubstr("expected none of type dynamic"));
}

}  // namespace
}  // namespace foe
