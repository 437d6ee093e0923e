#include "kernels/formats/feedback.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "each_target.h"
#include "numerics.h"
#include "quantised_values.h"

namespace foe {
namespace {

// Activations whose channels are mixtures of a few hidden numbers, as a model's are, and of different sizes.
std::vector<float> random_activations(int rows, int depth, std::uint64_t seed) {
  constexpr int kHidden = 12;
  const std::vector<float> hidden = random_values(rows * kHidden, seed), mix = random_values(depth * kHidden, seed + 1);
  const std::vector<float> own = random_values(rows * depth, seed + 2), size = random_values(depth, seed + 3);
  std::vector<float> x(rows * depth);
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < depth; ++k) {
      float sum = own[i * depth + k];
      for (int h = 0; h < kHidden; ++h) sum += 0.5f * mix[k * kHidden + h] * hidden[i * kHidden + h];
      x[i * depth + k] = sum * std::exp(size[k]);
    }
  return x;
}

std::vector<float> gram_of(const std::vector<float>& x, int rows, int depth) {
  std::vector<float> gram(depth * depth);
  for (int i = 0; i < depth; ++i)
    for (int j = 0; j < depth; ++j) {
      double sum = 0;
      for (int t = 0; t < rows; ++t) sum += static_cast<double>(x[t * depth + i]) * x[t * depth + j];
      gram[i * depth + j] = static_cast<float>(sum);
    }
  return gram;
}

struct Measured {
  int depth;
  std::vector<float> x, gram, importance;
  Correlations correlations;

  static constexpr int kRows = 400;

  // In blocks of channels that end here.
  explicit Measured(std::vector<int> ends, std::uint64_t seed = 1)
      : depth(ends.back()), x(random_activations(kRows, depth, seed)), gram(gram_of(x, kRows, depth)) {
    for (int k = 0; k < depth; ++k) importance.push_back(gram[k * depth + k] / kRows);
    int begin = 0;
    for (const int end : ends) {
      std::vector<float> part;
      for (int i = begin; i < end; ++i)
        part.insert(part.end(), gram.begin() + i * depth + begin, gram.begin() + i * depth + end);
      correlations.blocks.push_back(correlate(part.data(), begin, end, kRows));
      begin = end;
    }
  }
  ColumnErrors errors() const { return {importance.data(), &correlations}; }
};

std::vector<WeightBlock> with_feedback(const std::vector<float>& w, int rows, const Measured& by) {
  std::vector<WeightBlock> blocks(rows * ((by.depth + kCodeBlock - 1) / kCodeBlock));
  quantise_with_feedback(w.data(), rows, by.depth, by.errors(), blocks.data());
  return blocks;
}

float value(const std::vector<WeightBlock>& blocks, int depth, int row, int k) {
  const int per_row = (depth + kCodeBlock - 1) / kCodeBlock;
  return weight_value(WeightFormat::kInt4, blocks[row * per_row + k / kCodeBlock], k % kCodeBlock);
}

// The sum over rows of weights and activations of (e . x)^2.
double product_error(const std::vector<float>& w, const std::vector<WeightBlock>& blocks, const Measured& by) {
  const int rows = static_cast<int>(w.size()) / by.depth;
  double all = 0;
  for (int r = 0; r < rows; ++r)
    for (int t = 0; t < Measured::kRows; ++t) {
      double sum = 0;
      for (int k = 0; k < by.depth; ++k)
        sum += (static_cast<double>(w[r * by.depth + k]) - value(blocks, by.depth, r, k)) * by.x[t * by.depth + k];
      all += sum * sum;
    }
  return all;
}

TEST(Correlate, FactorsWhatTheRowsSay) {
  constexpr int kDepth = 40;
  const Measured all({kDepth});
  const Correlations::Block& block = all.correlations.blocks[0];
  const double kept = 400.0 / (400 + kDepth);
  for (int i = 0; i < kDepth; ++i)
    for (int j = 0; j <= i; ++j) {
      double actual = 0;  // of V^T D V
      for (int k = i; k < kDepth; ++k) {
        const auto v = [&](int c) { return c == k ? 1 : static_cast<double>(block.factor[k * kDepth + c]); };
        actual += v(i) * block.remaining[k] * v(j);
      }
      const double scale = std::sqrt(static_cast<double>(all.gram[i * kDepth + i]) * all.gram[j * kDepth + j]);
      EXPECT_NEAR(actual, i == j ? 1 : kept * all.gram[i * kDepth + j] / scale, 1e-5) << i << ", " << j;
    }
}

TEST(Correlate, ChannelsThatAreZeroAreUncorrelated) {
  const std::vector<float> gram = {4, 0, 0, 0, 0, 0, 2, 0, 1};
  const Correlations::Block block = correlate(gram.data(), 0, 3, 3);
  EXPECT_EQ(block.factor[1 * 3 + 0], 0);
  EXPECT_EQ(block.factor[2 * 3 + 0], 0.5f);  // half of 2 / sqrt(4 * 1)
  EXPECT_EQ(block.factor[2 * 3 + 1], 0);
  EXPECT_EQ(block.remaining, (std::vector<float>{0.75f, 1, 1}));
}

// Far lower than what importance alone reaches.
TEST(QuantiseWithFeedback, LowersTheErrorsOfProducts) {
  const Measured by({256});
  const std::vector<float> w = random_values(kPanel * by.depth, 9);
  std::vector<WeightBlock> alone;
  for (int r = 0; r < kPanel; ++r)
    for (int k = 0; k < by.depth; k += kCodeBlock)
      alone.push_back(
          quantise_block(WeightFormat::kInt4, w.data() + r * by.depth + k, kCodeBlock, by.importance.data() + k));
  EXPECT_LT(product_error(w, with_feedback(w, kPanel, by), by), 0.5 * product_error(w, alone, by));
}

// By the formula: each weight is the nearest to what the errors before it ask for, but for roundings near a midpoint.
TEST(QuantiseWithFeedback, TakesTheNearestToWhatIsAskedFor) {
  for (const int depth : {1, 20, 128, 200, 300}) {
    const Measured by({depth});
    for (const int rows : {1, 5, kPanel}) {
      const std::vector<float> w = random_values(rows * depth, depth);
      const std::vector<WeightBlock> blocks = with_feedback(w, rows, by);
      const int per_row = (depth + kCodeBlock - 1) / kCodeBlock;
      for (int r = 0; r < rows; ++r) {
        std::vector<double> scaled;
        for (int k = 0; k < depth; ++k) {
          const double root = std::sqrt(static_cast<double>(by.importance[k]));
          double asked = 0;
          for (int j = 0; j < k; ++j)
            asked += static_cast<double>(by.correlations.blocks[0].factor[k * depth + j]) * scaled[j];
          const double target = w[r * depth + k] + asked / root;
          const WeightBlock& block = blocks[r * per_row + k / kCodeBlock];
          const double unit = static_cast<double>(block.scale) * kInt4Factors[block.codes[k % kCodeBlock] / 16];
          double nearest = std::numeric_limits<double>::infinity();
          for (const std::int8_t level : kInt4Levels) nearest = std::min(nearest, std::abs(target - unit * level));
          const double chosen = value(blocks, depth, r, k);
          ASSERT_LE(std::abs(target - chosen), nearest + 1e-4 * std::abs(unit)) << depth << ", " << r << ", " << k;
          scaled.push_back(root * (w[r * depth + k] - chosen));
        }
      }
    }
  }
}

TEST(QuantiseWithFeedback, BlocksOfChannelsAreApart) {
  const Measured both({256, 300});
  const std::vector<float> w = random_values(3 * both.depth, 4);
  const std::vector<WeightBlock> blocks = with_feedback(w, 3, both);
  const auto part = [&](int first, int depth) {
    std::vector<float> own;
    for (int r = 0; r < 3; ++r)
      own.insert(own.end(), w.begin() + r * both.depth + first, w.begin() + r * both.depth + first + depth);
    std::vector<WeightBlock> result(3 * ((depth + kCodeBlock - 1) / kCodeBlock));
    quantise_with_feedback(own.data(), 3, depth, both.errors().from(first), result.data());
    for (int r = 0; r < 3; ++r)
      for (int k = 0; k < depth; ++k) EXPECT_EQ(value(result, depth, r, k), value(blocks, both.depth, r, first + k));
  };
  part(0, 256);
  part(256, 44);
}

TEST(QuantiseWithFeedback, SameBitsOnEveryTarget) {
  const Measured by({200});
  const std::vector<float> w = random_values(kPanel * by.depth, 3);
  std::vector<float> first;
  for_each_target([&] {
    std::vector<float> values;
    const std::vector<WeightBlock> blocks = with_feedback(w, kPanel, by);
    for (int r = 0; r < kPanel; ++r)
      for (int k = 0; k < by.depth; ++k) values.push_back(value(blocks, by.depth, r, k));
    if (first.empty()) first = values;
    EXPECT_EQ(values, first);
  });
}

// Channels that are hardly ever used, weights of nothing and the largest ones: all values are finite, and none is far
// from its weight.
TEST(QuantiseWithFeedback, Extremes) {
  for (const float size : {0.0f, 1e-38f, 1e-20f, 1.0f, 1e30f, 3e38f}) {
    Measured by({200});
    for (int k = 0; k < by.depth; k += 3) by.importance[k] *= k % 2 == 0 ? 0 : 1e-30f;
    std::vector<float> w = random_values(2 * by.depth, 3);
    float largest = 0;
    for (float& x : w) x = std::clamp(x / 4, -1.0f, 1.0f) * size, largest = std::max(largest, std::abs(x));
    const std::vector<WeightBlock> blocks = with_feedback(w, 2, by);
    for (int r = 0; r < 2; ++r)
      for (int k = 0; k < by.depth; ++k)
        EXPECT_LE(std::abs(value(blocks, by.depth, r, k)), 4 * static_cast<double>(largest))
            << size << ", " << r << ", " << k;
  }
}

}  // namespace
}  // namespace foe
