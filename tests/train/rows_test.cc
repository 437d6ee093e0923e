// The vector kernels of kernels/rows/train_rows.h against the plain loops of train/rows.h in double.
//
// Each result is compared with a tolerance of `ulps` roundings of the largest intermediate value: n terms summed one
// after the other give at most n roundings (Higham, Accuracy and Stability, section 4.2), exp and silu a few ulp each.
#include "train/rows.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kernels/each_target.h"

namespace foe::train {
namespace {

constexpr double kHalfUlp = 0x1.0p-24;
constexpr int kWidths[] = {1, 3, 15, 16, 17, 31, 48, 64, 100, 257};

template <typename Body>
void for_each_width(Body&& body) {
  for_each_target([&] {
    for (const int n : kWidths) {
      SCOPED_TRACE(n);
      body(n);
    }
  });
}

std::vector<double> random_row(int n, std::uint64_t seed, double scale = 1) {
  std::vector<double> x(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(scale * random_normal(seed, i));  // exact in both types
  return x;
}

std::vector<float> narrow(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

double sum_of_magnitudes(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

void expect_rows_near(const std::vector<float>& actual, const std::vector<double>& expected, double tolerance) {
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], tolerance) << "at " << i;
}

double largest(const std::vector<double>& x) {
  double m = 0;
  for (const double v : x) m = std::max(m, std::abs(v));
  return m;
}

TEST(Rows, Dot) {
  for_each_width([](int n) {
    const auto a = random_row(n, 1), b = random_row(n, 2);
    EXPECT_NEAR(dot(narrow(a).data(), narrow(b).data(), n), dot(a.data(), b.data(), n),
                (n + 1) * kHalfUlp * sum_of_magnitudes(a, b));
  });
}

TEST(Rows, RmsNormForwardAndBackward) {
  for_each_width([](int n) {
    const auto x = random_row(n, 1, 3), w = random_row(n, 2), dy = random_row(n, 3);
    std::vector<double> y(n), dx = random_row(n, 4), dw = random_row(n, 5);
    std::vector<float> y32(n), dx32 = narrow(dx), dw32 = narrow(dw);
    const double scale = rms_norm_row(x.data(), w.data(), 1e-6, n, y.data());
    const float scale32 = rms_norm_row(narrow(x).data(), narrow(w).data(), 1e-6f, n, y32.data());
    // A sum of n squares (all positive, so n u relative), a root, a division, two products.
    const double relative = (n + 8) * kHalfUlp;
    EXPECT_NEAR(scale32, scale, relative * scale);
    expect_rows_near(y32, y, relative * largest(y));

    rms_norm_row_backward(x.data(), w.data(), scale, dy.data(), n, dx.data(), dw.data());
    rms_norm_row_backward(narrow(x).data(), narrow(w).data(), scale32, narrow(dy).data(), n, dx32.data(), dw32.data());
    // dx holds s^3 / n * x * (sum of dy w x): three times the error of s and n roundings of the sum's magnitudes.
    std::vector<double> dyw(n);
    for (int i = 0; i < n; ++i) dyw[i] = dy[i] * w[i];
    const double along = scale * scale * scale / n * largest(x) * sum_of_magnitudes(dyw, x);
    expect_rows_near(dx32, dx, (4 * relative) * (along + scale * largest(dyw)) + 2 * kHalfUlp * largest(dx));
    expect_rows_near(dw32, dw, 2 * relative * scale * largest(dy) * largest(x) + 2 * kHalfUlp * largest(dw));
  });
}

TEST(Rows, SoftmaxForwardAndBackward) {
  for_each_width([](int n) {
    const auto x = random_row(n, 1, 4), dy = random_row(n, 2);
    auto y = x, again = x, dx = dy;
    auto y32 = narrow(x), again32 = narrow(x), dx32 = narrow(dy);
    const double log_sum = softmax_row(y.data(), n, 0.3);
    const float log_sum32 = softmax_row(y32.data(), n, 0.3f);
    // exp's argument is rounded at the size of the largest score: an error of |x| u in it is |x| u relative in exp.
    const double scores = 0.3 * largest(x);
    const double relative = (n + 8 + 8 * scores) * kHalfUlp;
    EXPECT_NEAR(log_sum32, log_sum, relative * (1 + std::abs(log_sum)));
    expect_rows_near(y32, y, relative);

    softmax_row_backward(again.data(), dx.data(), n, 0.3, log_sum, 0.25);
    softmax_row_backward(again32.data(), dx32.data(), n, 0.3f, log_sum32, 0.25f);
    const double relative_again = 2 * relative * (1 + std::abs(log_sum));
    expect_rows_near(again32, again, relative_again);
    expect_rows_near(dx32, dx, 0.3 * (relative_again + 4 * kHalfUlp) * (largest(dy) + 0.25));
  });
}

TEST(Rows, SoftmaxOfHugeScoresIsFinite) {
  std::vector<float> x = {3e37f, -3e37f, 3e37f, 0};
  softmax_row(x.data(), 4, 2.0f);
  EXPECT_EQ(x, (std::vector<float>{0.5f, 0, 0.5f, 0}));
}

TEST(Rows, SwigluForwardAndBackward) {
  for_each_width([](int n) {
    const auto gate = random_row(n, 1, 3), up = random_row(n, 2), dh = random_row(n, 3);
    std::vector<double> h(n), again(n), dgate(n), dup(n);
    std::vector<float> h32(n), again32(n), dgate32(n), dup32(n);
    swiglu_row(gate.data(), up.data(), 0.7, n, h.data());
    swiglu_row(narrow(gate).data(), narrow(up).data(), 0.7f, n, h32.data());
    const double relative = 12 * kHalfUlp;  // exp (2 ulp), three sums and up to five products
    expect_rows_near(h32, h, relative * largest(gate) * largest(up));

    const double dweight =
        swiglu_row_backward(gate.data(), up.data(), 0.7, dh.data(), n, dgate.data(), dup.data(), again.data());
    const float dweight32 = swiglu_row_backward(narrow(gate).data(), narrow(up).data(), 0.7f, narrow(dh).data(), n,
                                                dgate32.data(), dup32.data(), again32.data());
    expect_rows_near(again32, again, relative * largest(gate) * largest(up));
    EXPECT_NEAR(dweight32, dweight, (n + 12) * kHalfUlp * n * largest(gate) * largest(up) * largest(dh));
    // |d silu / d gate| <= 1 + |gate|
    expect_rows_near(dgate32, dgate, relative * largest(dh) * largest(up) * (1 + largest(gate)));
    expect_rows_near(dup32, dup, relative * largest(dh) * largest(gate));
  });
}

TEST(Rows, CrossEntropyForwardAndBackward) {
  for_each_width([](int n) {
    const auto x = random_row(n, 1, 4);
    auto d = x;
    auto d32 = narrow(x);
    const int target = n / 2;
    const double relative = (n + 8 + 8 * largest(x)) * kHalfUlp;
    const double nats = cross_entropy_row(x.data(), n, target);
    EXPECT_NEAR(cross_entropy_row(narrow(x).data(), n, target), nats, relative * (1 + largest(x)));
    EXPECT_NEAR(cross_entropy_row_backward(d.data(), n, target, 0.125), nats, 1e-12);
    EXPECT_NEAR(cross_entropy_row_backward(d32.data(), n, target, 0.125f), nats, relative * (1 + largest(x)));
    expect_rows_near(d32, d, 0.125 * relative);
  });
}

}  // namespace
}  // namespace foe::train
