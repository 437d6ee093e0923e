#include "kernels/formats/quantise.h"

#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>

#include <gtest/gtest.h>

#include "base/digest.h"
#include "each_target.h"
#include "kernels/formats/float_offset.h"
#include "numerics.h"
#include "quantised_values.h"

namespace foe {
namespace {

double square(double x) {
  return x * x;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Rounded {
  float scale = 0;
  std::vector<float> exact, values;  // what the codes stand for, and what they say
};

Rounded round_block(WeightFormat format, const std::vector<float>& w) {
  const int n = static_cast<int>(w.size());
  const WeightBlock block = quantise_block(format, w.data(), n);
  const CodedFloats exact = coded_weights(format, w.data(), n);
  Rounded r{block.scale, {exact.begin(), exact.end()}, {}};
  for (int k = 0; k < kCodeBlock; ++k) r.values.push_back(weight_value(format, block, k));
  return r;
}

double squared_error(const std::vector<float>& w, const std::vector<float>& rounded) {
  double sum = 0;
  for (std::size_t k = 0; k < w.size(); ++k)
    sum += (static_cast<double>(w[k]) - rounded[k]) * (static_cast<double>(w[k]) - rounded[k]);
  return sum;
}

double squares(const std::vector<float>& w) {
  return squared_error(w, std::vector<float>(w.size()));
}

// Half a step, and what a multiple's own roundings add.
TEST(QuantiseBlock, Int8IsTheNearestMultiple) {
  for (const int n : {1, 15, 127, 128}) {
    const Rounded r = round_block(WeightFormat::kInt8, random_values(n, n));
    for (int k = 0; k < kCodeBlock; ++k)
      EXPECT_NEAR(r.values[k], r.exact[k], r.scale * (0.5 + 3 * 127 * kUnitRoundoff)) << n << ", " << k;
  }
}

// A product of rotated weights and rotated activations is that of what they were: both sums of kCodeBlock numbers have
// seven roundings, and so many signs of the terms cancel.
TEST(QuantiseBlock, RotationKeepsProducts) {
  for (const int n : {1, 100, kCodeBlock}) {
    const std::vector<float> w = random_values(n, 1), x = random_values(n, 2);
    const CodedFloats rotated_w = coded_weights(WeightFormat::kInt8, w.data(), n);
    const CodedFloats rotated_x = coded_row(WeightFormat::kInt8, x.data(), n);
    double expected = 0, actual = 0, magnitude = 0;
    for (int k = 0; k < n; ++k) expected += static_cast<double>(w[k]) * x[k];
    for (int k = 0; k < kCodeBlock; ++k) actual += static_cast<double>(rotated_w[k]) * rotated_x[k];
    for (int k = 0; k < n; ++k)
      for (int j = 0; j < n; ++j) magnitude += std::abs(static_cast<double>(w[k]) * x[j]);
    EXPECT_NEAR(actual, expected, gamma(2 * 7) * magnitude);
  }
}

// The least error of any scale, by a fine grid.
double least_error(const std::vector<float>& w) {
  float largest = 0;
  for (const float x : w) largest = std::max(largest, std::abs(x));
  double least = squares(w);
  for (int step = -1000; step <= 1000; ++step) {
    const double scale = largest / 15 * step / 1000;
    double sum = 0;
    for (const float x : w) {
      double nearest = 1e9;
      for (const std::int8_t level : kInt4Levels) nearest = std::min(nearest, std::abs(x - scale * level));
      sum += nearest * nearest;
    }
    least = std::min(least, sum);
  }
  return least;
}

// The scales that are tried are 7 to 10 % apart and then move to the best for their codes, so the best of all is missed
// where other codes go with it. That may cost 5 % of the squared error, a tenth of what uniform levels would.
TEST(QuantiseBlock, Int4HasNearlyTheLeastError) {
  double error = 0, least = 0;
  for (int seed = 0; seed < 100; ++seed) {
    const Rounded r = round_block(WeightFormat::kInt4, random_values(kCodeBlock, seed));
    error += squared_error(r.exact, r.values);
    least += least_error(r.exact);
  }
  EXPECT_LT(error, 1.05 * least);
}

std::uint64_t digest_of(const WeightBlock& block) {
  Digest digest;
  digest.add(std::as_bytes(std::span(&block.scale, 1)));
  digest.add(std::as_bytes(std::span(block.codes)));
  return digest.value();
}

// Folders that were converted with an earlier version are what this one would write.
TEST(QuantiseBlock, Int4WithoutImportanceKeepsItsBits) {
  std::uint64_t all = 0;
  for (int seed = 0; seed < 100; ++seed) {
    const int n = seed < 90 ? kCodeBlock : 10 * (seed - 89);
    std::vector<float> w;
    for (int k = 0; k < n; ++k) w.push_back(static_cast<float>(random_bits(seed, k) % 4001) - 2000);
    all = 31 * all + digest_of(quantise_block(WeightFormat::kInt4, w.data(), n));
  }
  EXPECT_EQ(all, 0x93d2b034037be88au);
}

// As the mean squares of activations are: some channels count a hundred times as much as others.
std::vector<float> random_importance(int n, std::uint64_t seed) {
  std::vector<float> importance = random_values(n, 1000 + seed);
  for (float& x : importance) x = std::exp(1.5f * x);
  return importance;
}

double weighted_error(const std::vector<float>& w, const std::vector<float>& importance, const WeightBlock& block) {
  double sum = 0;
  for (std::size_t k = 0; k < w.size(); ++k)
    sum += importance[k] *
           square(static_cast<double>(w[k]) - weight_value(WeightFormat::kInt4, block, static_cast<int>(k)));
  return sum;
}

TEST(QuantiseBlock, ImportanceLowersTheErrorsThatCount) {
  double plain = 0, weighted = 0, alike = 0, squared = 0;
  for (int seed = 0; seed < 200; ++seed) {
    const std::vector<float> w = random_values(kCodeBlock, seed), importance = random_importance(kCodeBlock, seed);
    const std::vector<float> same(kCodeBlock, 7);
    const WeightBlock without = quantise_block(WeightFormat::kInt4, w.data(), kCodeBlock);
    const WeightBlock with = quantise_block(WeightFormat::kInt4, w.data(), kCodeBlock, importance.data());
    plain += weighted_error(w, importance, without);
    weighted += weighted_error(w, importance, with);
    squared += weighted_error(w, same, without);
    alike += weighted_error(w, same, quantise_block(WeightFormat::kInt4, w.data(), kCodeBlock, same.data()));
  }
  EXPECT_LT(weighted, 0.8 * plain);
  EXPECT_LT(alike, squared);  // more scales are tried
}

TEST(QuantiseBlock, OnlyRatiosOfImportanceMatter) {
  for (const int n : {1, 16, 100, kCodeBlock}) {
    const std::vector<float> w = random_values(n, n);
    std::vector<float> importance = random_importance(n, n);
    const std::uint64_t expected = digest_of(quantise_block(WeightFormat::kInt4, w.data(), n, importance.data()));
    for (float& x : importance) x *= 0x1p-90f;
    EXPECT_EQ(digest_of(quantise_block(WeightFormat::kInt4, w.data(), n, importance.data())), expected);
    const std::vector<float> none(n);
    EXPECT_EQ(digest_of(quantise_block(WeightFormat::kInt4, w.data(), n, none.data())),
              digest_of(quantise_block(WeightFormat::kInt4, w.data(), n)));
    EXPECT_EQ(digest_of(quantise_block(WeightFormat::kInt8, w.data(), n, importance.data())),
              digest_of(quantise_block(WeightFormat::kInt8, w.data(), n)));
  }
}

TEST(QuantiseBlock, ImportanceGivesTheSameBitsOnEveryTarget) {
  for (int seed = 0; seed < 20; ++seed) {
    const std::vector<float> w = random_values(kCodeBlock, seed), importance = random_importance(kCodeBlock, seed);
    std::uint64_t first = 0;
    for_each_target([&] {
      const std::uint64_t digest =
          digest_of(quantise_block(WeightFormat::kInt4, w.data(), kCodeBlock, importance.data()));
      if (first == 0) first = digest;
      EXPECT_EQ(digest, first);
    });
  }
}

// Where one channel is all that counts, its weight may be nothing, or much smaller than the others.
TEST(QuantiseBlock, ImportanceOfOneChannel) {
  std::vector<float> w = random_values(kCodeBlock, 1), importance(kCodeBlock);
  importance[20] = std::numeric_limits<float>::max();
  for (const float value : {0.0f, 1e-44f, 1e-30f, 1e-6f, -0.01f, 1.0f, -1e30f}) {
    w[20] = value;
    const WeightBlock block = quantise_block(WeightFormat::kInt4, w.data(), kCodeBlock, importance.data());
    EXPECT_TRUE(std::isfinite(block.scale));
    EXPECT_NE(block.scale, 0);
    float largest = 0;
    for (const float x : w) largest = std::max(largest, std::abs(x));
    for (int k = 0; k < kCodeBlock; ++k)
      EXPECT_NEAR(weight_value(WeightFormat::kInt4, block, k), w[k], largest) << value << ", " << k;
  }
}

// Errors of int8 are spread evenly over a step, so their mean square is step^2 / 12; the largest has none.
TEST(QuantiseBlock, Int8HasTheErrorOfItsStep) {
  double error = 0, expected = 0;
  for (int seed = 0; seed < 400; ++seed) {
    const Rounded r = round_block(WeightFormat::kInt8, random_values(kCodeBlock, seed));
    error += squared_error(r.exact, r.values);
    expected += 128 * static_cast<double>(r.scale) * r.scale / 12;
  }
  EXPECT_NEAR(error / expected, 1, 0.05);
}

TEST(QuantiseBlock, WhatIsNotANumberStaysNone) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4})
    for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
      std::vector<float> w = random_values(32, 1);
      w[5] = bad;
      for (const float x : round_block(format, w).values) EXPECT_TRUE(std::isnan(x));
    }
}

TEST(QuantiseBlock, NothingAndNearlyNothingIsZero) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4})
    for (const float small : {0.0f, 1e-45f, 1e-38f}) {
      const std::vector<float> w(32, small);
      EXPECT_EQ(round_block(format, w).values, std::vector<float>(kCodeBlock)) << small;
    }
}

TEST(QuantiseBlock, ExtremesOfFloatsAreFinite) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    std::vector<float> w(32, std::numeric_limits<float>::max());
    w[3] = -w[3];
    for (const float x : round_block(format, w).values) EXPECT_TRUE(std::isfinite(x)) << to_string(format);
  }
}

// All that rows of integers say, without what fills cache lines.
template <typename Block>
std::vector<std::byte> written_bytes(const QuantisedRows& rows, int count, int n) {
  constexpr std::size_t kUsed = std::is_same_v<Block, RowBlock>
                                    ? offsetof(RowBlock, part_offsets) + sizeof(RowBlock::part_offsets)
                                    : sizeof(RowBlockOfParts);
  std::vector<std::byte> all;
  for (int i = 0; i < count; ++i)
    for (int k = 0; k < n; k += kCodeBlock) {
      const auto* block = reinterpret_cast<const std::byte*>(&row_block_of<Block>(rows, i, k));
      all.insert(all.end(), block, block + kUsed);
    }
  return all;
}

// Codes are the nearest multiples of the scale that takes the largest to 127, to within a multiple's own roundings.
void check_codes(const float* exact, int n, float scale, const std::int8_t* codes) {
  float largest = 0;
  for (int k = 0; k < n; ++k) largest = std::max(largest, std::abs(exact[k]));
  ASSERT_EQ(scale, std::max(largest * 0x1.020406p-7f, std::numeric_limits<float>::min()));
  for (int k = 0; k < n; ++k)
    ASSERT_NEAR(static_cast<double>(scale) * codes[k], exact[k], scale * (0.5 + 3 * kMostCode * kUnitRoundoff));
}

int sum_of(const std::int8_t* codes, int n) {
  return std::accumulate(codes, codes + n, 0);
}

template <typename Block>
void check_part_offsets(const Block& block) {
  for (int part = 0; part < kCodeBlock / kInt4Part; ++part)
    for (int half = 0; half < 2; ++half) {
      int sum = 0;
      for (int k = 2 * half; k < kInt4Part; k += 4) sum += sum_of(block.codes + part * kInt4Part + k, 2);
      ASSERT_EQ(block.part_offsets[part][half], -kLevelOffset * sum);
    }
}

// The block of these n activations, with zeros after them.
void check_block(WeightFormat format, const RowBlock& block, const float* x, int n) {
  check_codes(coded_row(format, x, n).data(), kCodeBlock, block.scale, block.codes);
  if (format == WeightFormat::kInt4) check_part_offsets(block);
  for (const auto& offsets : block.part_offsets)
    for (const std::int16_t offset : offsets) ASSERT_TRUE(format == WeightFormat::kInt4 || offset == 0);
  ASSERT_EQ(block.offset, -kCodeOffset * sum_of(block.codes, kCodeBlock));
}
void check_block(WeightFormat format, const RowBlockOfParts& block, const float* x, int n) {
  const CodedFloats all = coded_row(format, x, n);
  for (int k = 0; k < kCodeBlock; k += kRowPart) {
    check_codes(all.data() + k, kRowPart, block.scales[k / kRowPart], block.codes + k);
    ASSERT_EQ(block.wide_offsets[k / kRowPart], kFloatOffset - kCodeOffset * sum_of(block.codes + k, kRowPart));
  }
  check_part_offsets(block);
}

template <typename Block>
void check_rows(WeightFormat format, int n) {
  constexpr int kRows = 40;
  const std::size_t stride = quantised_row_bytes(format, n);
  const std::vector<float> x = random_values(kRows * n, n);
  std::vector<std::byte> first;
  for_each_target([&] {
    for (const auto& pool : thread_pools()) {
      AlignedBuffer<std::byte> bytes(kRows * stride);
      const QuantisedRows rows{bytes.data(), stride};
      quantise_rows(*pool, format, x.data(), n, kRows, n, rows);
      const std::vector<std::byte> written = written_bytes<Block>(rows, kRows, n);
      if (!first.empty()) {
        ASSERT_EQ(written, first);
        continue;
      }
      first = written;
      for (int i = 0; i < kRows; ++i)
        for (int k = 0; k < n; k += kCodeBlock)
          check_block(format, row_block_of<Block>(rows, i, k), x.data() + i * n + k, std::min(kCodeBlock, n - k));
    }
  });
}

TEST(QuantiseRows, NearestMultipleOnEveryTargetAndAnyThreads) {
  for (const int n : {1, 15, 16, 33, 127, 128, 129, 1000}) {
    check_rows<RowBlock>(WeightFormat::kInt8, n);
    check_rows<RowBlock>(WeightFormat::kInt4, n);
    check_rows<RowBlockOfParts>(WeightFormat::kQ8_0, n);
  }
}

TEST(QuantiseRows, ExtremesAndWhatIsNotANumber) {
  constexpr int kN = 140;
  ThreadPool pool(1);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kQ8_0})
    for (const float special :
         {std::nanf(""), kInfinity, -kInfinity, std::numeric_limits<float>::max(), 1e-45f, 0.0f}) {
      std::vector<float> x(kN);
      x[17] = special;
      AlignedBuffer<std::byte> bytes(quantised_row_bytes(format, kN));
      const QuantisedRows rows{bytes.data(), bytes.size()};
      for_each_target([&] {
        quantise_rows(pool, format, x.data(), kN, 1, kN, rows);
        const float scale = in_parts(format) ? scale_in_parts(rows, 0, 17) : row_block_of(rows, 0, 17).scale;
        EXPECT_EQ(std::isfinite(special), std::isfinite(scale)) << special;
        for (int k = 0; k < padded_depth(format, kN); ++k) {
          const int most =
              k == 17 || (k < kCodeBlock && format == WeightFormat::kInt8) ? kMostCode : 0;  // rotation spreads it
          EXPECT_EQ(std::abs(quantised_code(rows, 0, k)), std::abs(special) > 1 && std::isfinite(special) ? most : 0);
        }
      });
    }
}

}  // namespace
}  // namespace foe
