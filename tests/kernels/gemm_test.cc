#include "kernels/products/gemm.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "each_target.h"
#include "numerics.h"

namespace foe {
namespace {

constexpr int kCounts[] = {0, 1, 2, 5, 6, 7, 8, 9, 25, 47, 48, 49, 100};
constexpr int kDepths[] = {0, 1, 15, 16, 17, 255, 256, 257, 600};
constexpr int kWidths[] = {1, 15, 16, 17, 31, 33, 100};
constexpr float kUntouched = -12345.0f;

// The gathered rows of x: neither the identity nor ascending, and with one row twice.
std::vector<std::int32_t> gather_rows(int count) {
  std::vector<std::int32_t> rows(count);
  for (int i = 0; i < count; ++i) rows[i] = i == 0 ? count - 1 : count - i;
  return rows;
}

std::vector<float> gathered(const std::vector<float>& x, const std::vector<std::int32_t>& rows, int depth) {
  std::vector<float> y;
  for (const int row : rows) y.insert(y.end(), x.begin() + row * depth, x.begin() + (row + 1) * depth);
  return y;
}

// One product with its operands, its result and its reference. Rows of y have one float more than the product fills.
struct Case {
  int count, width, depth;
  Weights weights;
  PackedMatrix packed;
  std::vector<float> x;
  std::vector<std::int32_t> rows;  // empty: not gathered
  std::vector<float> y;
  ref::Values expected, magnitude;  // the product, and that of absolute values

  Case(int count_, int width_, int depth_, DType type, bool gather, std::uint64_t seed)
      : count(count_),
        width(width_),
        depth(depth_),
        weights(random_values(static_cast<std::size_t>(width) * depth, seed), width, depth, type),
        packed(weights.packed()),
        x(random_values(static_cast<std::size_t>(count) * depth, seed + 1)),
        rows(gather ? gather_rows(count) : std::vector<std::int32_t>()),
        y(static_cast<std::size_t>(count) * (width + 1)) {
    const auto x_used = to_double(gather ? gathered(x, rows, depth) : x), w = to_double(weights.values);
    expected = ref::matmul(x_used, w, count, width, depth);
    magnitude = ref::matmul(absolute(x_used), absolute(w), count, width, depth);
  }
  Case(const Case&) = delete;

  Product product() {
    std::fill(y.begin(), y.end(), kUntouched);
    return {x.data(), static_cast<std::size_t>(depth),    rows.empty() ? nullptr : rows.data(), count, &packed,
            y.data(), static_cast<std::size_t>(width) + 1};
  }
  void check() const {
    for (int i = 0; i < count; ++i) {
      for (int n = 0; n < width; ++n)
        ASSERT_NEAR(y[i * (width + 1) + n], expected[i * width + n], gamma(depth) * magnitude[i * width + n])
            << "row " << i << ", output " << n;
      ASSERT_EQ(y[i * (width + 1) + width], kUntouched) << "wrote past the end of row " << i;
    }
  }
};

TEST(Gemm, MatchesReference) {
  const auto pools = thread_pools();
  for (const int count : kCounts)
    for (const int depth : kDepths)
      for (const int width : kWidths)
        for (const DType type : {DType::kF32, DType::kBF16}) {
          SCOPED_TRACE(testing::Message() << count << "x" << width << "x" << depth << " " << to_string(type));
          Case c(count, width, depth, type, depth % 2 == 1, count + 1000 * depth + width);
          for_each_target([&] {
            const Product product = c.product();
            multiply(*pools[(count + width) % 3], {&product, 1});
            c.check();
          });
          if (testing::Test::HasFailure()) return;
        }
}

// The experts' case: many products of all sizes at once, some without rows and some without outputs.
TEST(Gemm, RunsProductsOfAllSizesAtOnce) {
  std::deque<Case> cases;
  for (int i = 0; i < 40; ++i) {
    const auto pick = [&](const auto& sizes, int salt) { return sizes[random_bits(i, salt) % std::size(sizes)]; };
    cases.emplace_back(i % 7 == 3 ? 0 : pick(kCounts, 0), i % 11 == 5 ? 0 : pick(kWidths, 1), pick(kDepths, 2),
                       i % 3 ? DType::kF32 : DType::kBF16, i % 2 == 0, i);
  }
  for (const auto& pool : thread_pools())
    for_each_target([&] {
      std::vector<Product> products;
      for (Case& c : cases) products.push_back(c.product());
      multiply(*pool, products);
      for (const Case& c : cases) c.check();
    });
}

TEST(Gemm, NoProductsIsNothing) {
  ThreadPool pool(2);
  multiply(pool, {});
  multiply_gated(pool, {}, {5});
}

// The promise "Bits" (docs/architecture.md): a row alone, in any batch, on any instruction set and any number of
// threads.
TEST(Gemm, BitsDependOnNeitherBatchNorTargetNorThreads) {
  const auto pools = thread_pools();
  for (const DType type : {DType::kF32, DType::kBF16})
    for (const int depth : kDepths) {
      SCOPED_TRACE(testing::Message() << to_string(type) << ", depth " << depth);
      Case c(100, 49, depth, type, false, depth);
      std::vector<float> first;
      for_each_target([&] {
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
          some.x += skipped * depth;
          some.y += skipped * 50;
          multiply(*pools[1], {&some, 1});
          ASSERT_TRUE(std::equal(c.y.begin() + skipped * 50, c.y.end(), first.begin() + skipped * 50))
              << "the last " << count << " rows";
        }
        for (int row = 0; row < 100; ++row) {
          Product alone = c.product();
          alone.count = 1;
          alone.x += row * depth;
          multiply(*pools[0], {&alone, 1});
          ASSERT_TRUE(std::equal(c.y.begin(), c.y.begin() + 50, first.begin() + row * 50)) << "row " << row;
        }
      });
    }
}

// The bits of products, additions and merges one after the other, however many terms wait for each other.
TEST(Gemm, AddsABiasToEveryRow) {
  const auto pools = thread_pools();
  for (const int count : {1, 7, 48, 49})
    for (const int width : {1, 33, 64}) {
      Case c(count, width, 100, DType::kBF16, false, width);
      const std::vector<float> bias = random_values(width, 5);
      for_each_target([&] {
        Product product = c.product();
        multiply(*pools[0], {&product, 1});
        std::vector<float> expected = c.y;
        for (int i = 0; i < count; ++i)
          for (int n = 0; n < width; ++n) expected[i * (width + 1) + n] += bias[n];
        product = c.product();
        product.plus = bias.data();
        multiply(*pools[count % 3], {&product, 1});
        ASSERT_EQ(c.y, expected) << count << " rows of " << width;
      });
    }
}

TEST(Gemm, SumsInTheOrderOfTheMerges) {
  const auto pools = thread_pools();
  for (const int terms : {1, 2, 3, 4, 7, 8, 13, 64})
    for (const int count : {0, 1, 7, 48, 49})
      for (const int width : {1, 33, 64}) {
        SCOPED_TRACE(testing::Message() << terms << " terms [" << count << ", " << width << "]");
        std::deque<Case> cases;
        for (int i = 0; i < terms; ++i) cases.emplace_back(count, width, 17 * (i % 3), DType::kBF16, i % 2 == 0, i);
        std::vector<std::int16_t> indices(terms);
        std::iota(indices.begin(), indices.end(), std::int16_t{0});
        std::vector<Merge> merges(terms - 1);
        sum_tree_merges(indices.data(), terms, merges.data());
        const std::size_t size = cases.front().y.size();
        std::vector<std::vector<float>> plus(terms);
        for (int i = 0; i < terms; ++i) plus[i] = random_values(size, 100 + i);
        for_each_target([&] {
          std::vector<Product> products;
          for (Case& c : cases) products.push_back(c.product());
          multiply(*pools[0], products);
          for (int i = 0; i < terms; i += 2)
            for (std::size_t j = 0; j < size; ++j) cases[i].y[j] += plus[i][j];
          for (const Merge& m : merges)
            for (std::size_t j = 0; j < size; ++j) cases[m.into].y[j] += cases[m.from].y[j];
          std::vector<float> sum(size, kUntouched);
          for (int i = 0; i < terms; ++i) {
            products[i].y = i == 0 ? sum.data() : nullptr;
            products[i].plus = i % 2 == 0 ? plus[i].data() : nullptr;
            products[i].plus_stride = width + 1;
          }
          multiply_and_sum(*pools[terms % 3], products, merges);
          for (int i = 0; i < count; ++i) {
            const auto row = sum.begin() + i * (width + 1);
            ASSERT_TRUE(std::equal(row, row + width, cases.front().y.begin() + i * (width + 1))) << "row " << i;
            ASSERT_EQ(row[width], kUntouched) << "wrote past the end of row " << i;
          }
        });
      }
}

// The gate's own error moves silu and GELU by at most 1.13 times as much, their largest slope. Computing silu takes an
// exp within 2 ulp (4 u relative), a sum and a quotient: 6 u. GELU ends in x / 2 + x / 2 tanh: of |x| / 2, the argument
// of tanh with five roundings and tanh within 4 ulp (8 u) make 11 u, and the sum is rounded once more: below 7 u |x|.
// Then the product with up, which has an error of its own, is rounded once.
double gated_bound(Activation function, double gate, double up, double gate_error, double up_error) {
  const double largest_gate = std::abs(gate) + gate_error;
  const double slope = function == Activation::kRelu2 ? 2 * largest_gate : 1.13, value = ref::activate(function, gate);
  const double moved = std::abs(value) + slope * gate_error;
  const double computing = function == Activation::kGeluTanh ? gamma(7) * largest_gate : gamma(6) * moved;
  const double activation_error = slope * gate_error + computing;
  const double activation = std::abs(value) + activation_error;
  return activation_error * std::abs(up) + activation * up_error +
         kUnitRoundoff * activation * (std::abs(up) + up_error);
}

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu2};

TEST(GemmGated, MatchesReference) {
  const auto pools = thread_pools();
  for (const int count : {0, 1, 3, 6, 8, 49, 100})
    for (const int depth : {1, 16, 17, 257})
      for (const int width : kWidths)
        for (const DType type : {DType::kF32, DType::kBF16}) {
          SCOPED_TRACE(testing::Message() << count << "x" << width << "x" << depth << " " << to_string(type));
          Case gate(count, width, depth, type, false, depth);
          const Weights up(random_values(static_cast<std::size_t>(width) * depth, 77), width, depth, type);
          const auto x = to_double(gate.x), w = to_double(up.values);
          const auto expected_up = ref::matmul(x, w, count, width, depth);
          const auto magnitude_up = ref::matmul(absolute(x), absolute(w), count, width, depth);
          const Activation activation = kActivations[(count + depth + width) % 3];
          const auto expected = ref::gated(gate.expected, expected_up, activation);
          gate.packed = pack_gate_up(one_thread(), gate.weights.matrix, up.matrix, format_of(type));
          for_each_target([&] {
            const Product product = gate.product();
            multiply_gated(*pools[width % 3], {&product, 1}, {width, activation});
            for (int i = 0; i < count; ++i) {
              for (int f = 0; f < width; ++f) {
                const int at = i * width + f;
                ASSERT_NEAR(gate.y[i * (width + 1) + f], expected[at],
                            gated_bound(activation, gate.expected[at], expected_up[at],
                                        gamma(depth) * gate.magnitude[at], gamma(depth) * magnitude_up[at]))
                    << "row " << i << ", unit " << f;
              }
              ASSERT_EQ(gate.y[i * (width + 1) + width], kUntouched) << "wrote past the end of row " << i;
            }
          });
          if (testing::Test::HasFailure()) return;
        }
}

// gpt-oss's network, and its parts one by one. A bias is one more rounding of gate and up. Clipping brings numbers no
// farther apart. Alpha in f32 and its product with x are within 2 u, which moves x / (1 + e^(-alpha x)) by at most
// 2 u |x| times the largest z s(z) (1 - s(z)) of the logistic function s, 0.23. The offset is one rounding of up.
TEST(GemmGated, ShapesAndBiasesMatchReference) {
  const auto pools = thread_pools();
  const GateShape shapes[] = {{}, {.limit = 0.75}, {.alpha = 1.702}, {.up_offset = 1}, {1.702, 0.75, 1}};
  for (const int count : {1, 9, 50})
    for (const int width : {1, 16, 33})
      for (const GateShape& shape : shapes) {
        const int depth = 17, at_shape = static_cast<int>(&shape - shapes);
        SCOPED_TRACE(testing::Message() << count << "x" << width << " shape " << at_shape);
        Case gate(count, width, depth, DType::kBF16, false, count + width);
        const Weights up(random_values(static_cast<std::size_t>(width) * depth, 77), width, depth, DType::kBF16);
        const auto gate_bias = random_values(width, 5), up_bias = random_values(width, 6);
        const auto plus = pack_gate_up_bias(gate_bias, up_bias);
        const auto x = to_double(gate.x), w = to_double(up.values);
        ref::Values up_expected = ref::matmul(x, w, count, width, depth);
        ref::Values up_magnitude = ref::matmul(absolute(x), absolute(w), count, width, depth);
        for (int i = 0; i < count * width; ++i) {
          gate.expected[i] += gate_bias[i % width], up_expected[i] += up_bias[i % width];
          gate.magnitude[i] += std::abs(gate_bias[i % width]), up_magnitude[i] += std::abs(up_bias[i % width]);
        }
        const auto expected = ref::gated(gate.expected, up_expected, Activation::kSilu, shape);
        gate.packed = pack_gate_up(one_thread(), gate.weights.matrix, up.matrix, WeightFormat::kBF16);
        for_each_target([&] {
          Product product = gate.product();
          product.plus = plus.data();
          multiply_gated(*pools[width % 3], {&product, 1}, {width, Activation::kSilu, shape});
          for (int i = 0; i < count * width; ++i) {
            const double most = shape.limit > 0 ? shape.limit : HUGE_VAL;
            const double g = std::min(gate.expected[i], most);
            const double u = std::clamp(up_expected[i], -most, most) + shape.up_offset;
            const double gate_error = gamma(depth + 1) * gate.magnitude[i];
            const double up_error =
                gamma(depth + 1) * up_magnitude[i] * (1 + kUnitRoundoff) + kUnitRoundoff * std::abs(u);
            const double of_alpha = gamma(1) * 0.46 * (std::abs(g) + gate_error);
            ASSERT_NEAR(
                gate.y[i / width * (width + 1) + i % width], expected[i],
                gated_bound(Activation::kSilu, g, u, gate_error, up_error) + of_alpha * (std::abs(u) + up_error))
                << "row " << i / width << ", unit " << i % width;
          }
        });
        if (testing::Test::HasFailure()) return;
      }
}

// What is not a number stays so, and what is not finite is clipped.
TEST(GemmGated, ClipsWhatIsNotFinite) {
  const float inf = HUGE_VALF, nan = std::numeric_limits<float>::quiet_NaN();
  const Weights w(std::vector<float>(1, 0.0f), 1, 1, DType::kF32);
  const PackedMatrix packed = pack_gate_up(one_thread(), w.matrix, w.matrix, WeightFormat::kF32);
  const float x = 1;
  float y = 0;
  const auto result = [&](float gate, float up) {
    const auto plus = pack_gate_up_bias({&gate, 1}, {&up, 1});
    Product product{&x, 1, nullptr, 1, &packed, &y, 1};
    product.plus = plus.data();
    multiply_gated(one_thread(), {&product, 1}, {1, Activation::kSilu, {.limit = 7}});
    return y;
  };
  EXPECT_EQ(result(inf, 2), result(7, 2));
  EXPECT_EQ(result(1, inf), result(1, 7));
  EXPECT_EQ(result(1, -inf), result(1, -7));
  EXPECT_TRUE(std::isnan(result(nan, 2)));
  EXPECT_TRUE(std::isnan(result(1, nan)));
}

TEST(GemmGated, BitsDependOnNeitherBatchNorTargetNorThreads) {
  constexpr int kRows = 50, kWidth = 33, kDepth = 300;
  const Weights gate(random_values(kWidth * kDepth, 1), kWidth, kDepth, DType::kBF16);
  const Weights up(random_values(kWidth * kDepth, 2), kWidth, kDepth, DType::kBF16);
  const PackedMatrix packed = pack_gate_up(one_thread(), gate.matrix, up.matrix, WeightFormat::kBF16);
  const auto x = random_values(kRows * kDepth, 3);
  const auto plus = pack_gate_up_bias(random_values(kWidth, 4), random_values(kWidth, 5));
  std::vector<GatedUnits> all_units;
  for (const Activation activation : kActivations) all_units.push_back({kWidth, activation});
  all_units.push_back({kWidth, Activation::kSilu, {1.702, 7, 1}});
  for (const GatedUnits& units : all_units) {
    const float* bias = units.shape == GateShape{} ? nullptr : plus.data();
    std::vector<float> first;
    for (const auto& pool : thread_pools())
      for_each_target([&] {
        std::vector<float> together(kRows * kWidth), alone(kRows * kWidth);
        const Product all{x.data(), kDepth, nullptr, kRows, &packed, together.data(), kWidth, bias};
        multiply_gated(*pool, {&all, 1}, units);
        std::vector<Product> singles;
        for (int row = 0; row < kRows; ++row)
          singles.push_back(
              {x.data() + row * kDepth, kDepth, nullptr, 1, &packed, alone.data() + row * kWidth, kWidth, bias});
        multiply_gated(*pool, singles, units);
        if (first.empty()) first = together;
        ASSERT_EQ(together, first);
        ASSERT_EQ(alone, first);
      });
  }
}

}  // namespace
}  // namespace foe
