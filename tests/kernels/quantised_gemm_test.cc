// Products with quantised weights against the double reference of what the codes and scales say.
#include <cstring>

#include <gtest/gtest.h>

#include "each_target.h"
#include "kernels/products/gemm.h"
#include "numerics.h"
#include "quantised_values.h"

namespace foe {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kInt8, WeightFormat::kInt4};
constexpr int kCounts[] = {0, 1, 2, 3, 4, 7, 8, 25, 48, 49, 100};
constexpr int kDepths[] = {1, 31, 64, 127, 128, 129, 256, 257, 600};
constexpr int kWidths[] = {1, 16, 17, 33, 100};

// The place that weight_format.h gives element (row, k).
double element(const PackedMatrix& w, int row, int k) {
  const int r = row % kPanel, j = k % kCodeBlock;
  const std::byte* block = w.data + row / kPanel * w.panel_stride + k / kCodeBlock * block_bytes(w.format);
  const std::byte* codes = block + 64;
  if (w.format == WeightFormat::kInt8) {
    float scale;
    std::memcpy(&scale, block + r * sizeof scale, sizeof scale);
    return static_cast<double>(scale) * static_cast<std::int8_t>(codes[(j / 4 * kPanel + r) * 4 + j % 4]);
  }
  BF16 scale;
  std::uint16_t choices;
  std::memcpy(&scale, block + r * sizeof scale, sizeof scale);
  std::memcpy(&choices, block + 32 + r * sizeof choices, sizeof choices);
  const int both = static_cast<int>(codes[(j / 8 * kPanel + r) * 4 + j % 4]);
  const int level = kInt4Levels[j % 8 < 4 ? both & 15 : both >> 4],
            factor = kInt4Factors[choices >> (2 * (j / 16)) & 3];
  return static_cast<double>(to_float(scale)) * factor * level;
}

// With what rotation makes of the zeros that fill up the last block.
ref::Values elements(const PackedMatrix& w) {
  ref::Values values;
  for (int row = 0; row < w.rows; ++row)
    for (int k = 0; k < padded_depth(w.format, w.depth); ++k) values.push_back(element(w, row, k));
  return values;
}

// Rows with what products take for them.
struct CodedRows {
  WeightFormat format;
  int n;
  AlignedBuffer<std::byte> bytes;
  QuantisedRows view;

  CodedRows(WeightFormat format_, const std::vector<float>& x, int rows, int n_)
      : format(format_), n(n_), bytes(rows * quantised_row_bytes(format, n)) {
    view = {bytes.data(), quantised_row_bytes(format, n)};
    quantise_rows(one_thread(), format, x.data(), n, rows, n, view);
  }
  CodedRows(const CodedRows&) = delete;
  // What the codes of row i say.
  double value(int i, int k) const { return quantised_value(view, i, k); }
};

struct Case {
  int count, width, depth;
  PackedMatrix w;
  CodedRows x;
  std::vector<float> y;
  ref::Values expected, magnitude;

  Case(int count_, int width_, int depth_, WeightFormat format, std::uint64_t seed)
      : count(count_),
        width(width_),
        depth(depth_),
        w(pack_random(width, depth, format, seed)),
        x(format, random_values(static_cast<std::size_t>(count) * depth, seed + 1), count, depth),
        y(static_cast<std::size_t>(count) * width) {
    ref::Values rows;
    const int padded = padded_depth(format, depth);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < padded; ++k) rows.push_back(x.value(i, k));
    const ref::Values weights = elements(w);
    expected = ref::matmul(rows, weights, count, width, padded);
    magnitude = ref::matmul(absolute(rows), absolute(weights), count, width, padded);
  }
  Case(const Case&) = delete;

  static PackedMatrix pack_random(int rows, int depth, WeightFormat format, std::uint64_t seed) {
    const Weights weights(random_values(static_cast<std::size_t>(rows) * depth, seed), rows, depth, DType::kF32);
    return pack(one_thread(), {&weights.matrix, 1}, format);
  }
  Product product() {
    std::fill(y.begin(), y.end(), -12345.0f);
    return {.x = nullptr,
            .x_stride = 0,
            .rows = nullptr,
            .count = count,
            .w = &w,
            .y = y.data(),
            .y_stride = static_cast<std::size_t>(width),
            .quantised = x.view};
  }
  // Sums of a block are exact; each is rounded once as a float and multiplied and added in one step, and there is the
  // scale of the row, or of its block.
  void check() const {
    const double roundings = ((depth + kCodeBlock - 1) / kCodeBlock) + 2;
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], gamma(roundings) * magnitude[i]) << i;
  }
};

TEST(QuantisedGemm, MatchesReference) {
  const auto pools = thread_pools();
  for (const WeightFormat format : kFormats)
    for (const int count : kCounts)
      for (const int depth : kDepths)
        for (const int width : kWidths) {
          SCOPED_TRACE(testing::Message() << count << "x" << width << "x" << depth << " " << to_string(format));
          Case c(count, width, depth, format, count + 1000 * depth + width);
          for_each_target_of_codes([&] {
            const Product product = c.product();
            multiply(*pools[(count + width) % 3], {&product, 1});
            c.check();
          });
          if (testing::Test::HasFailure()) return;
        }
}

// Integer sums and one order of blocks: also the instruction set does not matter.
TEST(QuantisedGemm, BitsDependOnNeitherBatchNorTargetNorThreads) {
  const auto pools = thread_pools();
  for (const WeightFormat format : kFormats)
    for (const int depth : {33, 128, 600}) {
      SCOPED_TRACE(testing::Message() << to_string(format) << ", depth " << depth);
      Case c(100, 49, depth, format, depth);
      std::vector<float> first;
      for_each_target_of_codes([&] {
        for (const auto& pool : pools) {
          const Product all = c.product();
          multiply(*pool, {&all, 1});
          if (first.empty()) first = c.y;
          ASSERT_EQ(c.y, first) << pool->threads() << " threads";
        }
        for (const int count : kCounts) {
          Product some = c.product();
          const int skipped = 100 - count;
          some.count = count;
          some.quantised = from_row(some.quantised, skipped);
          some.y += skipped * 49;
          multiply(*pools[1], {&some, 1});
          ASSERT_TRUE(std::equal(c.y.begin() + skipped * 49, c.y.end(), first.begin() + skipped * 49))
              << "the last " << count;
        }
        std::vector<std::int32_t> backwards(100);
        for (int i = 0; i < 100; ++i) backwards[i] = 99 - i;
        Product gathered = c.product();
        gathered.rows = backwards.data();
        multiply(*pools[0], {&gathered, 1});
        for (int i = 0; i < 100; ++i)
          ASSERT_TRUE(std::equal(c.y.begin() + i * 49, c.y.begin() + (i + 1) * 49, first.begin() + (99 - i) * 49)) << i;
      });
    }
}

// A matrix of one code everywhere, at a scale of 1 and in int4 with the factor of one choice.
PackedMatrix filled(int rows, int depth, WeightFormat format, int byte, int choice) {
  PackedMatrix w = empty_packed(rows, depth, format);
  const float one = 1;
  const BF16 half = to_bf16(one);
  const auto choices = static_cast<std::uint16_t>(choice * 0x5555);
  const std::size_t bytes = block_bytes(format);
  for (std::size_t block = 0; block + bytes <= w.own.size(); block += bytes) {
    std::byte* head = w.own.data() + block;
    for (int r = 0; r < kPanel; ++r)
      if (format == WeightFormat::kInt8) {
        std::memcpy(head + r * sizeof one, &one, sizeof one);
      } else {
        std::memcpy(head + r * sizeof half, &half, sizeof half);
        std::memcpy(head + 32 + r * sizeof choices, &choices, sizeof choices);
      }
    std::fill(head + 64, head + bytes, static_cast<std::byte>(byte));
  }
  return w;
}

// The largest codes there are, all of one sign: nothing saturates or overflows, so that sums of blocks are exact, and
// so are their sums, which have few bits.
TEST(QuantisedGemm, LargestCodesAreExact) {
  constexpr int kDepth = 256, kWidth = 20;
  struct Largest {
    WeightFormat format;
    int byte, choice, weight;
  };
  for (const auto& [format, byte, choice, weight] : {Largest{WeightFormat::kInt8, 127, 0, 127},
                                                     {WeightFormat::kInt8, -127, 0, -127},
                                                     {WeightFormat::kInt4, 0xff, 2, 4 * kInt4Levels[15]},
                                                     {WeightFormat::kInt4, 0x00, 3, -4 * kInt4Levels[0]},
                                                     {WeightFormat::kInt4, 0xff, 3, -4 * kInt4Levels[15]},
                                                     {WeightFormat::kInt4, 0xff, 0, 2 * kInt4Levels[15]},
                                                     {WeightFormat::kInt4, 0x00, 1, 3 * kInt4Levels[0]},
                                                     {WeightFormat::kInt4, 0x00, 2, 4 * kInt4Levels[0]}})
    for (const float sign : {1.0f, -1.0f}) {
      const PackedMatrix w = filled(kWidth, kDepth, format, byte, choice);
      ASSERT_EQ(element(w, 3, 5), weight);
      for (const int rows : {1, 2, 3, 60}) {
        // Rotation makes all of a block equal to its first, if that is the only one.
        const int step = format == WeightFormat::kInt8 ? kCodeBlock : 1;
        std::vector<float> values(rows * kDepth);
        for (int k = 0; k < rows * kDepth; k += step) values[k] = sign * kMostCode;
        const CodedRows x(format, values, rows, kDepth);
        ASSERT_EQ(quantised_code(x.view, 0, 0), sign * kMostCode);
        const double expected = kDepth * weight * x.value(0, 0);
        std::vector<float> y(rows * kWidth);
        for_each_target_of_codes([&] {
          const Product product{.count = rows, .w = &w, .y = y.data(), .y_stride = kWidth, .quantised = x.view};
          multiply(one_thread(), {&product, 1});
          for (const float value : y)
            ASSERT_NEAR(value, expected, gamma(8 + 2) * std::abs(expected)) << to_string(w.format);
        });
      }
    }
}

// A share of rows and columns, as ranks take it from a file that is packed whole, multiplies as the matrix does.
TEST(QuantisedGemm, ViewsMultiplyLikeWhatTheyShow) {
  const int rows = 80, depth = 512;
  for (const WeightFormat format : kFormats) {
    const PackedMatrix whole = Case::pack_random(rows, depth, format, 7);
    for (const auto& [row, count, column, columns] :
         {std::tuple{0, 80, 0, 512}, {16, 40, 0, 512}, {0, 80, 128, 256}, {48, 32, 384, 128}}) {
      const PackedMatrix view = whole.view(row, count, column, columns);
      for (int i = 0; i < count; ++i)
        for (int k = 0; k < columns; ++k) ASSERT_EQ(element(view, i, k), element(whole, row + i, column + k));
      const CodedRows x(format, random_values(5 * columns, 3), 5, columns);
      std::vector<float> y(5 * count);
      const Product product{
          .count = 5, .w = &view, .y = y.data(), .y_stride = static_cast<std::size_t>(count), .quantised = x.view};
      multiply(one_thread(), {&product, 1});
      for (int i = 0; i < 5; ++i)
        for (int n = 0; n < count; ++n) {
          double expected = 0, magnitude = 0;
          for (int k = 0; k < columns; ++k) {
            const double term = x.value(i, k) * element(whole, row + n, column + k);
            expected += term;
            magnitude += std::abs(term);
          }
          ASSERT_NEAR(y[i * count + n], expected, gamma(8 + 2) * magnitude);
        }
    }
  }
}

TEST(QuantisedGemmDeathTest, ViewsCutNoPanelAndNoBlock) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const PackedMatrix w = Case::pack_random(48, 256, WeightFormat::kInt8, 1);
  EXPECT_DEATH(w.view(8, 16, 0, 256), "rows 8\\+16 of 48");
  EXPECT_DEATH(w.view(0, 48, 64, 128), "columns 64\\+128 of 256 in blocks of 128");
  EXPECT_DEATH(w.view(0, 48, 128, 64), "columns 128\\+64 of 256");
  EXPECT_DEATH(w.view(32, 32, 0, 256), "rows 32\\+32 of 48");
}

// Gate and up in turn, silu of their exact products within its own error (gemm_test.cc).
TEST(QuantisedGemm, Swiglu) {
  for (const WeightFormat format : kFormats)
    for (const int width : {16, 17, 40}) {
      const int rows = 9, depth = 96;
      const Weights gate(random_values(width * depth, 1), width, depth, DType::kF32);
      const Weights up(random_values(width * depth, 2), width, depth, DType::kF32);
      const PackedMatrix both = pack_gate_up(one_thread(), gate.matrix, up.matrix, format);
      const PackedMatrix alone[] = {pack(one_thread(), {&gate.matrix, 1}, format),
                                    pack(one_thread(), {&up.matrix, 1}, format)};
      const CodedRows x(format, random_values(rows * depth, 3), rows, depth);
      std::vector<float> y(rows * width), parts[2] = {y, y};
      const auto product = [&](const PackedMatrix& w, std::vector<float>& out) {
        return Product{
            .count = rows, .w = &w, .y = out.data(), .y_stride = static_cast<std::size_t>(width), .quantised = x.view};
      };
      for_each_target_of_codes([&] {
        Product together = product(both, y);
        multiply_gated(one_thread(), {&together, 1}, {width});
        for (int i = 0; i < 2; ++i) {
          const Product part = product(alone[i], parts[i]);
          multiply(one_thread(), {&part, 1});
        }
        for (int i = 0; i < rows * width; ++i) {
          const double expected = ref::silu(parts[0][i]) * parts[1][i];
          ASSERT_NEAR(y[i], expected, gamma(8) * std::abs(expected)) << i;
        }
        // Biases of gate and up are added in f32, one rounding each.
        const auto gate_bias = random_values(width, 4), up_bias = random_values(width, 5);
        const auto plus = pack_gate_up_bias(gate_bias, up_bias);
        together.plus = plus.data();
        multiply_gated(one_thread(), {&together, 1}, {width});
        for (int i = 0; i < rows * width; ++i) {
          const float with_bias = parts[0][i] + gate_bias[i % width];
          const double expected = ref::silu(with_bias) * (parts[1][i] + up_bias[i % width]);
          ASSERT_NEAR(y[i], expected, gamma(8) * std::abs(expected)) << i;
        }
      });
    }
}

}  // namespace
}  // namespace foe
