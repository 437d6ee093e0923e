#include "kernels/rows/rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include <gtest/gtest.h>

#include "core/rope.h"
#include "each_target.h"
#include "numerics.h"

namespace foe {
namespace {

constexpr int kWidths[] = {1, 2, 15, 16, 17, 31, 33, 100, 768};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Equal bits: unlike ==, tells -0 from +0.
void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(a[i]), std::bit_cast<std::uint32_t>(b[i]))
        << i << ": " << a[i] << ", " << b[i];
}

// Roundings in the sum of n squares: a chain of n / 16 fused multiply-adds in each lane, then a tree of 4 sums.
int sum_roundings(int n) {
  return (n + 15) / 16 + 4;
}

TEST(RmsNorm, MatchesReference) {
  const auto pools = thread_pools();
  for (const int n : kWidths)
    for (const int rows : {0, 1, 15, 16, 17, 40})
      for (const bool with_add : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " rows of " << n << (with_add ? " plus another" : ""));
        const std::size_t stride = n + 3;
        const auto x = random_values(rows * stride, n), plus = random_values(rows * stride, n + 1),
                   weight = random_values(n, n + 2);
        ref::Values sums;
        for (int row = 0; row < rows; ++row)
          for (int i = 0; i < n; ++i)
            sums.push_back(static_cast<double>(x[row * stride + i]) + (with_add ? plus[row * stride + i] : 0.0f));
        const float eps = 1e-6f;
        const auto expected = ref::rms_norm(sums, to_double(weight), eps);
        // x + add is rounded once and squared (2), summed, divided by n and added to eps (2), all of it under the root
        // (halved); root, reciprocal, x + add again, two products.
        const double bound = gamma((2 + sum_roundings(n) + 2) / 2.0 + 5);
        for_each_target([&] {
          for (const auto& pool : pools) {
            std::vector<float> y(rows * (n + 1), -7.0f);
            rms_norm(*pool, {x.data(), with_add ? plus.data() : nullptr, stride, weight.data(), y.data(),
                             static_cast<std::size_t>(n) + 1, rows, n, eps});
            for (int row = 0; row < rows; ++row) {
              for (int i = 0; i < n; ++i)
                ASSERT_NEAR(y[row * (n + 1) + i], expected[row * n + i], bound * std::abs(expected[row * n + i]));
              ASSERT_EQ(y[row * (n + 1) + n], -7.0f) << "wrote past the end of row " << row;
            }
          }
        });
      }
}

TEST(RmsNorm, ManyTimesAreEachAlone) {
  constexpr std::size_t kRows = 19, kTimes = 3, kWidth = 40, kStride = kRows * kWidth + 5;
  const auto x = random_values(kRows * kWidth, 1), adds = random_values(kTimes * kStride, 2),
             weight = random_values(kWidth, 3);
  ThreadPool pool(2);
  std::vector<float> together(kTimes * kRows * kWidth), alone(together.size());
  RowNorm norm{.x = x.data(),
               .add = adds.data(),
               .x_stride = kWidth,
               .weight = weight.data(),
               .y = together.data(),
               .y_stride = kWidth,
               .rows = kRows,
               .n = kWidth,
               .eps = 1e-5f,
               .times = kTimes,
               .add_stride = kStride};
  rms_norm(pool, norm);
  norm.times = 1;
  for (std::size_t time = 0; time < kTimes; ++time) {
    norm.add = adds.data() + time * kStride;
    norm.y = alone.data() + time * kRows * kWidth;
    rms_norm(pool, norm);
  }
  expect_same_bits(together, alone);
}

TEST(RmsNorm, IsItsTwoHalvesInPlaceAndOnEveryTarget) {
  ThreadPool pool(2);
  for (const int n : kWidths) {
    constexpr int kRows = 19;
    const auto x = random_values(kRows * n, n), weight = random_values(n, n + 1);
    const float eps = 1e-5f;
    std::vector<float> first;
    for_each_target([&] {
      auto whole = x, halves = x;
      const auto width = static_cast<std::size_t>(n);
      rms_norm(pool, {whole.data(), nullptr, width, weight.data(), whole.data(), width, kRows, n, eps});
      for (int row = 0; row < kRows; ++row) {
        const float squares = sum_of_squares(x.data() + row * n, n);
        scale_row(halves.data() + row * n, weight.data(), 1.0f / std::sqrt(squares / static_cast<float>(n) + eps), n);
      }
      expect_same_bits(whole, halves);
      if (first.empty()) first = whole;
      expect_same_bits(whole, first);
    });
  }
}

TEST(SumOfSquares, MatchesReference) {
  for (const int n : {0, 1, 15, 16, 17, 100, 1000}) {
    const auto x = random_values(n, n);
    double expected = 0;
    for (const float value : x) expected += static_cast<double>(value) * value;
    for_each_target([&] { EXPECT_NEAR(sum_of_squares(x.data(), n), expected, gamma(sum_roundings(n)) * expected); });
  }
}

// Rotates the first `width` of a head of `head_dim`.
void check_rotation(int head_dim, int width, double position, double factor, bool interleaved) {
  const double theta = 500000;
  const int half = width / 2;
  const auto head = random_values(head_dim, head_dim);
  const auto expected = ref::rope(to_double(head), position, theta, factor, width, interleaved);
  std::vector<float> cosines(half), sines(half), first;
  rope_angles(static_cast<int>(position), rope_frequencies({.theta = theta, .factor = factor, .width = width}),
              cosines.data(), sines.data());
  for_each_target([&] {
    auto rotated = head;
    (interleaved ? rope_interleaved : rope)(rotated.data(), cosines.data(), sines.data(), width);
    for (int i = 0; i < half; ++i) {
      // Each output is two products and a sum of two rounded factors.
      const int at = interleaved ? 2 * i : i, other = interleaved ? 2 * i + 1 : i + half;
      const double c = std::abs(cosines[i]), s = std::abs(sines[i]);
      const double a = std::abs(head[at]), b = std::abs(head[other]);
      EXPECT_NEAR(rotated[at], expected[at], gamma(4) * (a * c + b * s));
      EXPECT_NEAR(rotated[other], expected[other], gamma(4) * (b * c + a * s));
    }
    for (int i = width; i < head_dim; ++i) EXPECT_EQ(rotated[i], head[i]) << "is not rotated";
    if (first.empty()) first = rotated;
    expect_same_bits(rotated, first);
  });
}

TEST(Rope, MatchesReference) {
  for (const int head_dim : {2, 10, 16, 24, 34, 64, 128})
    for (const double position : {0.0, 1.0, 17.0, 511.0, 32767.0})
      for (const double factor : {1.0, 16.0})
        for (const int width : {head_dim, head_dim / 4 * 2})
          for (const bool interleaved : {false, true}) {
            SCOPED_TRACE(testing::Message() << width << " of head dim " << head_dim << ", position " << position
                                            << " / " << factor << (interleaved ? ", interleaved" : ""));
            check_rotation(head_dim, width, position, factor, interleaved);
          }
}

TEST(Rope, FactorMultipliesCosinesAndSines) {
  RopeFrequencies frequencies = rope_frequencies({.width = 16});
  frequencies.factor = 1.25;
  std::vector<float> cosines(8), sines(8);
  for (const bool f32 : {false, true}) {
    frequencies.f32 = f32;
    rope_angles(5, frequencies, cosines.data(), sines.data());
    for (int i = 0; i < 8; ++i) {
      const double exact = 5 * frequencies.inverse[i], angle = f32 ? static_cast<float>(exact) : exact;
      EXPECT_EQ(cosines[i], static_cast<float>(1.25 * std::cos(angle)));
      EXPECT_EQ(sines[i], static_cast<float>(1.25 * std::sin(angle)));
    }
  }
}

TEST(Rope, PositionZeroChangesNothing) {
  const auto head = random_values(64, 1);
  std::vector<float> cosines(32), sines(32);
  rope_angles(0, rope_frequencies({.width = 64}), cosines.data(), sines.data());
  auto rotated = head;
  rope(rotated.data(), cosines.data(), sines.data(), 64);
  EXPECT_EQ(rotated, head);
}

// A factor is one rounding. A cap is the division, tanh within 4 ulp (8 u) of an argument that is off by 2 u, and a
// product.
TEST(ScaleAndCap, MatchesReference) {
  for (const int n : kWidths) {
    const auto x = random_values(n, n);
    std::vector<float> first_capped;
    for_each_target([&] {
      std::vector<float> same = x, scaled = x, capped = x;
      scale_and_cap(same.data(), n, 1);
      scale_and_cap(scaled.data(), n, 0.3f);
      scale_and_cap(capped.data(), n, 3, 2);
      expect_same_bits(same, x);
      for (int i = 0; i < n; ++i) {
        ASSERT_EQ(scaled[i], 0.3f * x[i]);
        const double expected = 2 * std::tanh(3.0 * x[i] / 2);
        ASSERT_NEAR(capped[i], expected, gamma(11) * std::abs(expected));
      }
      if (first_capped.empty()) first_capped = capped;
      expect_same_bits(capped, first_capped);
    });
  }
}

TEST(AddTo, IsElementwise) {
  for (const std::size_t n : {0, 1, 15, 16, 17, 63, 1000}) {
    const auto x = random_values(n + 1, n), y0 = random_values(n + 1, n + 1);
    for_each_target([&] {
      auto sum = y0, scaled = y0, expected_sum = y0, expected_scaled = y0;
      add_to(sum.data(), x.data(), n);
      add_scaled(scaled.data(), x.data(), 0.3f, n);
      for (std::size_t i = 0; i < n; ++i) {
        expected_sum[i] = y0[i] + x[i];
        expected_scaled[i] = y0[i] + 0.3f * x[i];
      }
      expect_same_bits(sum, expected_sum);
      expect_same_bits(scaled, expected_scaled);
    });
  }
}

// p_i = e^(s_i - m) / sum. The difference d is rounded (an error of u |d| in the exponent, where |d| counts up to 87,
// past which e^d is taken as 0), exp is within 2 ulp (4 u), and each term of the sum has those too; sum and quotient.
double softmax_bound(const std::vector<float>& scores, int i, double p) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  const auto distance = [&](double score) { return std::min(87.0, largest - score); };
  double farthest = 0;
  for (const float score : scores) farthest = std::max(farthest, distance(score));
  const int n = static_cast<int>(scores.size());
  return gamma(distance(scores[i]) + farthest + 8 + sum_roundings(n) + 1) * p + n * std::exp(-87.0);
}

TEST(Softmax, MatchesReference) {
  for (const int n : kWidths)
    for (const float spread : {0.1f, 1.0f, 30.0f, 300.0f}) {
      SCOPED_TRACE(testing::Message() << n << " scores, spread " << spread);
      auto scores = random_values(n, n);
      for (float& score : scores) score *= spread;
      if (n > 2) scores[n / 2] = -kInfinity;
      if (n > 2) scores[n - 1] = scores[0];  // a tie stays one
      const auto expected = ref::softmax(to_double(scores));
      std::vector<float> first;
      for_each_target([&] {
        std::vector<float> p(n + 1, -7.0f);
        softmax(scores.data(), n, p.data());
        for (int i = 0; i < n; ++i) ASSERT_NEAR(p[i], expected[i], softmax_bound(scores, i, expected[i])) << i;
        ASSERT_EQ(p[n], -7.0f) << "wrote past the end";
        if (n > 2) {
          EXPECT_EQ(p[n / 2], 0.0f);
          EXPECT_EQ(p[n - 1], p[0]);
        }
        EXPECT_GT(*std::max_element(p.begin(), p.end()), 0.0f);
        auto in_place = scores;
        softmax(in_place.data(), n, in_place.data());
        p.pop_back();
        expect_same_bits(in_place, p);
        if (first.empty()) first = p;
        expect_same_bits(p, first);
      });
    }
}

TEST(Sigmoid, MatchesReference) {
  for (const int n : kWidths) {
    auto x = random_values(n, n);
    for (int i = 0; i < n; ++i) x[i] *= static_cast<float>(i % 3 == 0 ? 1 : 20);
    if (n > 2) x[1] = -kInfinity, x[2] = kInfinity;
    std::vector<float> first;
    for_each_target([&] {
      std::vector<float> y(n + 1, -7.0f);
      sigmoid(x.data(), n, y.data());
      for (int i = 0; i < n; ++i) {
        const double expected = 1 / (1 + std::exp(-static_cast<double>(x[i])));
        // exp is within 2 ulp (4 u), a sum and a quotient round; past 88 it is infinite, and the sigmoid 0.
        ASSERT_NEAR(y[i], expected, gamma(6) * expected + std::exp(-88.0)) << x[i];
      }
      ASSERT_EQ(y[n], -7.0f) << "wrote past the end";
      if (n > 2) {
        EXPECT_EQ(y[1], 0.0f);
        EXPECT_EQ(y[2], 1.0f);
      }
      auto in_place = x;
      sigmoid(in_place.data(), n, in_place.data());
      y.pop_back();
      expect_same_bits(in_place, y);
      if (first.empty()) first = y;
      expect_same_bits(y, first);
    });
  }
}

// The definition of a sum over experts, literally: the whole binary tree over E leaves, absent ones +0, plus +0.
float tree_sum(const std::vector<std::optional<float>>& leaves, std::size_t begin, std::size_t size) {
  if (size == 1) return leaves[begin].value_or(0.0f);
  return tree_sum(leaves, begin, size / 2) + tree_sum(leaves, begin + size / 2, size / 2);
}

TEST(CombineRows, IsTheSumOverAllExpertsWithAbsentOnesZero) {
  constexpr int kExperts = 64;
  for (const int count : {0, 1, 2, 3, 8, 13, 63, 64})
    for (const int n : {1, 16, 17, 50}) {
      SCOPED_TRACE(testing::Message() << count << " rows of " << n);
      std::vector<std::int32_t> experts(kExperts);
      for (int e = 0; e < kExperts; ++e) experts[e] = e;
      std::sort(experts.begin(), experts.end(),
                [&](int a, int b) { return random_bits(count, a) < random_bits(count, b); });
      experts.resize(count);
      std::sort(experts.begin(), experts.end());
      std::vector<Merge> merges(std::max(0, count - 1));
      sum_tree_merges(experts.data(), count, merges.data());

      auto values = random_values(count * n, 1);
      for (int j = 0; j < count; ++j) values[j * n] = -0.0f;  // only the last +0 makes this column's sum +0
      const auto weights = random_values(count, 2);
      std::vector<float> weight(count);
      for (int j = 0; j < count; ++j) weight[j] = std::abs(weights[j]);
      std::vector<const float*> rows;
      for (int j = 0; j < count; ++j) rows.push_back(values.data() + j * n);

      std::vector<float> expected(n);
      for (int i = 0; i < n; ++i) {
        std::vector<std::optional<float>> leaves(kExperts);
        for (int j = 0; j < count; ++j) leaves[experts[j]] = weight[j] * rows[j][i];
        expected[i] = tree_sum(leaves, 0, kExperts) + 0.0f;
      }
      const auto exact = ref::combine(to_double(values), to_double(weight), n);
      const auto magnitude = ref::combine(absolute(to_double(values)), to_double(weight), n);
      for_each_target([&] {
        std::vector<float> y(n);
        combine_rows(rows.data(), weight.data(), merges.data(), count, n, y.data());
        expect_same_bits(y, expected);
        // One product and the six levels of a tree over 64.
        for (int i = 0; i < n; ++i) EXPECT_NEAR(y[i], exact[i], gamma(7) * magnitude[i]);
      });
    }
}

TEST(AddRows, IsElementwiseInTheOrderOfTheMergesAndMayBeInPlace) {
  for (const int count : {1, 2, 3, 8, 13, 64})
    for (const std::size_t n : {1, 15, 16, 17, 50}) {
      std::vector<int> indices(count);
      for (int j = 0; j < count; ++j) indices[j] = j;
      std::vector<Merge> merges(count);
      sum_tree_merges(indices.data(), count, merges.data());
      const auto values = random_values(count * n, n);
      std::vector<float> expected(n);
      for (std::size_t i = 0; i < n; ++i) {
        std::vector<float> term;
        for (int j = 0; j < count; ++j) term.push_back(values[j * n + i]);
        for (int j = 0; j + 1 < count; ++j) term[merges[j].into] += term[merges[j].from];
        expected[i] = term[0];
      }
      for_each_target([&] {
        for (int into = 0; into <= count; ++into) {  // one of the rows, or another
          auto moved = values;
          moved.resize((count + 1) * n);
          std::vector<const float*> rows;
          for (int j = 0; j < count; ++j) rows.push_back(moved.data() + j * n);
          add_rows(rows.data(), merges.data(), count, n, moved.data() + into * n);
          ASSERT_TRUE(std::equal(expected.begin(), expected.end(), moved.data() + into * n))
              << count << " into " << into;
        }
      });
    }
}

TEST(CombineRowsDeathTest, MoreThanATokenMaySelect) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(combine_rows(nullptr, nullptr, nullptr, 65, 1, nullptr), "65 experts");
}

}  // namespace
}  // namespace foe
