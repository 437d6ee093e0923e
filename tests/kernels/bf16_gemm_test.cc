// Products of bf16 with bf16: on every instruction set, on tiles or not, the bits of the order that is written down in
// kernels/products/bf16_dot-inl.h, here as plain loops.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "each_target.h"
#include "kernels/products/gemm.h"
#include "numerics.h"

namespace foe {
namespace {

constexpr WeightFormat kFormat = WeightFormat::kBF16xBF16;

// A subnormal number is a zero of its sign.
float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

// Over 32 k at a time a chain of fused multiply-adds over even k and one over odd k, their sum, and the sum so far plus
// that. What is past the depth is zero.
float dot(const std::vector<float>& x, const std::vector<float>& w) {
  float sum = 0;
  for (std::size_t begin = 0; begin < x.size(); begin += 32) {
    float chains[2] = {};
    for (std::size_t k = begin; k < begin + 32; ++k) {
      const float a = k < x.size() ? x[k] : 0, b = k < w.size() ? w[k] : 0;
      chains[k % 2] = flushed(std::fma(flushed(a), flushed(b), chains[k % 2]));
    }
    sum = flushed(sum + flushed(chains[0] + chains[1]));
  }
  return sum;
}

float rounded(float x) {
  return to_float(to_bf16(x));
}

struct Case {
  int count, width, depth;
  std::vector<float> x, w, expected;
  PackedMatrix packed;
  AlignedBuffer<std::byte> codes;

  Case(int count_, int width_, int depth_, float scale)
      : count(count_),
        width(width_),
        depth(depth_),
        x(random_values(static_cast<std::size_t>(count) * depth, depth)),
        w(random_values(static_cast<std::size_t>(width) * depth, depth + 1)),
        codes(count * quantised_row_bytes(kFormat, depth)) {
    for (float& value : x) value *= scale;
    const Weights stored(w, width, depth, DType::kF32);
    packed = pack(one_thread(), {&stored.matrix, 1}, kFormat);
    for (int i = 0; i < count; ++i)
      for (int n = 0; n < width; ++n) {
        std::vector<float> a, b;
        for (int k = 0; k < depth; ++k) {
          a.push_back(rounded(x[i * depth + k]));
          b.push_back(rounded(w[n * depth + k]));
        }
        expected.push_back(dot(a, b));
      }
  }
  // The outputs of some rows.
  std::vector<float> multiply_rows(ThreadPool& pool, int first, int rows) {
    const QuantisedRows to{codes.data(), quantised_row_bytes(kFormat, depth)};
    quantise_rows(pool, kFormat, x.data(), depth, count, depth, to);
    std::vector<float> y(static_cast<std::size_t>(rows) * width, -1);
    const Product product{.count = rows,
                          .w = &packed,
                          .y = y.data(),
                          .y_stride = static_cast<std::size_t>(width),
                          .quantised = from_row(to, first)};
    multiply(pool, {&product, 1});
    return y;
  }
};

TEST(Bf16Gemm, HasTheBitsOfItsOrderEverywhere) {
  const auto pools = thread_pools();
  for (const int depth : {1, 2, 31, 32, 33, 64, 100, 600})
    for (const int width : {1, 16, 33, 70}) {
      SCOPED_TRACE(testing::Message() << width << "x" << depth);
      Case c(133, width, depth, 1);
      for_each_target_of_codes([&] {
        ASSERT_EQ(c.multiply_rows(*pools[width % 3], 0, c.count), c.expected);
        for (const int rows : {1, 2, 3, 7, 8, 15, 16, 17, 31, 40}) {
          const int first = c.count - rows;
          const std::vector<float> some(c.expected.begin() + first * width, c.expected.end());
          ASSERT_EQ(c.multiply_rows(*pools[0], first, rows), some) << "the last " << rows;
        }
      });
    }
}

// Products just above and below the smallest normal number, whose sums vanish or do not, as the order says.
TEST(Bf16Gemm, FlushesSubnormalNumbersLikeTiles) {
  for (const float scale : {0x1p-118f, 0x1p-124f, 0x1p-126f, 0x1p-130f}) {
    Case c(20, 20, 96, scale);
    for_each_target_of_codes([&] { ASSERT_EQ(c.multiply_rows(one_thread(), 0, c.count), c.expected) << scale; });
    for_each_target_of_codes([&] {
      const std::vector<float> first(c.expected.begin(), c.expected.begin() + 20);
      ASSERT_EQ(c.multiply_rows(one_thread(), 0, 1), first) << scale;
    });
  }
}

// Against exact products: two chains over at most 16 k, their sum, and one addition for each 32 k.
TEST(Bf16Gemm, IsCloseToTheExactSum) {
  Case c(9, 20, 1000, 1);
  const std::vector<float> y = c.multiply_rows(one_thread(), 0, c.count);
  const double roundings = 16 + 1 + (1000.0 + 31) / 32;
  for (int i = 0; i < c.count; ++i)
    for (int n = 0; n < c.width; ++n) {
      double exact = 0, magnitude = 0;
      for (int k = 0; k < c.depth; ++k) {
        const double term = static_cast<double>(rounded(c.x[i * c.depth + k])) * rounded(c.w[n * c.depth + k]);
        exact += term, magnitude += std::abs(term);
      }
      ASSERT_NEAR(y[i * c.width + n], exact, gamma(roundings) * magnitude);
    }
}

// What is not a number, or infinite, stays in its row.
TEST(Bf16Gemm, KeepsWhatIsNotFiniteInItsRow) {
  Case c(20, 20, 64, 1);
  c.x[3 * 64 + 5] = std::numeric_limits<float>::quiet_NaN();
  c.x[7 * 64 + 9] = std::numeric_limits<float>::infinity();
  for_each_target_of_codes([&] {
    const std::vector<float> y = c.multiply_rows(one_thread(), 0, c.count);
    for (int i = 0; i < c.count; ++i)
      for (int n = 0; n < c.width; ++n) {
        if (i == 3 || i == 7)
          ASSERT_FALSE(std::isfinite(y[i * 20 + n])) << i;
        else
          ASSERT_EQ(y[i * 20 + n], c.expected[i * 20 + n]) << i;
      }
  });
}

}  // namespace
}  // namespace foe
