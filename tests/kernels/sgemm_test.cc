#include "kernels/products/sgemm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "each_target.h"

namespace foe {
namespace {

std::vector<float> random_matrix(int rows, int columns, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(rows) * columns);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random_normal(seed, i));
  return x;
}

// Every second row, from the end: a gather that is neither the identity nor ascending.
std::vector<std::int32_t> gather_rows(int count) {
  std::vector<std::int32_t> rows(count);
  for (int i = 0; i < count; ++i) rows[i] = 2 * (count - 1 - i) + 1;
  return rows;
}

// |fl(c + sum of K products) - exact| <= gamma_K (|c| + sum |a||b|), gamma_K = K u / (1 - K u), u = 2^-24: K fused
// multiply-adds round K times (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
double bound(int depth, double magnitude) {
  const double ku = depth * 0x1.0p-24;
  return ku / (1 - ku) * magnitude;
}

struct Shape {
  int m, n, k;
};
// Below, at and past the tile, the panel and every block; and primes.
constexpr Shape kShapes[] = {{1, 1, 1},      {1, 16, 7},     {6, 16, 192},  {8, 32, 192},
                             {7, 17, 193},   {9, 33, 13},    {13, 48, 200}, {144, 32, 64},
                             {145, 257, 31}, {31, 300, 397}, {150, 5, 401}, {3, 97, 1000}};

TEST(Sgemm, PanelsMatchDoubleReference) {
  for_each_target([] {
    for (const auto& [m, n, k] : kShapes)
      for (const bool gathered : {false, true})
        for (const Into into : {Into::kOverwrite, Into::kAdd}) {
          SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << (gathered ? " gathered" : ""));
          const auto rows = gather_rows(m);
          const auto a = random_matrix(2 * m, k, 1), w = random_matrix(k, n, 2), c0 = random_matrix(2 * m, n, 3);
          AlignedBuffer<float> b = AlignedBuffer<float>::zeroed(panels_size(k, n));
          for (int i = 0; i < k; ++i)
            for (int j = 0; j < n; ++j) b[(static_cast<std::size_t>(j / 16) * k + i) * 16 + j % 16] = w[i * n + j];
          auto c = c0;
          const std::int32_t* index = gathered ? rows.data() : nullptr;
          sgemm_panels(m, {a.data(), static_cast<std::size_t>(k), index}, {b.data(), k, n},
                       {c.data(), static_cast<std::size_t>(n), index}, into);
          std::vector<bool> written(2 * m);
          for (int i = 0; i < m; ++i) {
            const int row = gathered ? rows[i] : i;
            written[row] = true;
            for (int j = 0; j < n; ++j) {
              double sum = into == Into::kAdd ? c0[row * n + j] : 0, magnitude = std::abs(sum);
              for (int q = 0; q < k; ++q) {
                const double product = static_cast<double>(a[row * k + q]) * w[q * n + j];
                sum += product;
                magnitude += std::abs(product);
              }
              ASSERT_NEAR(c[row * n + j], sum, bound(k, magnitude)) << i << ", " << j;
            }
          }
          for (int row = 0; row < 2 * m; ++row)
            for (int j = 0; j < n && !written[row]; ++j) ASSERT_EQ(c[row * n + j], c0[row * n + j]) << "row " << row;
        }
  });
}

TEST(Sgemm, TransposedMatchesDoubleReference) {
  SgemmScratch scratch;
  for_each_target([&] {
    for (const auto& [m, n, k] : kShapes)
      for (const bool gathered : {false, true})
        for (const Into into : {Into::kOverwrite, Into::kAdd}) {
          SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << (gathered ? " gathered" : ""));
          const auto rows = gather_rows(k);
          const auto a = random_matrix(2 * k, m, 1), b = random_matrix(2 * k, n, 2), c0 = random_matrix(m, n + 1, 3);
          auto c = c0;
          const std::int32_t* index = gathered ? rows.data() : nullptr;
          sgemm_transposed(k, {a.data(), static_cast<std::size_t>(m), index}, m,
                           {b.data(), static_cast<std::size_t>(n), index}, n,
                           {c.data(), static_cast<std::size_t>(n) + 1}, into, scratch);
          for (int i = 0; i < m; ++i) {
            for (int j = 0; j < n; ++j) {
              double sum = into == Into::kAdd ? c0[i * (n + 1) + j] : 0, magnitude = std::abs(sum);
              for (int q = 0; q < k; ++q) {
                const int row = gathered ? rows[q] : q;
                const double product = static_cast<double>(a[row * m + i]) * b[row * n + j];
                sum += product;
                magnitude += std::abs(product);
              }
              ASSERT_NEAR(c[i * (n + 1) + j], sum, bound(k, magnitude)) << i << ", " << j;
            }
            ASSERT_EQ(c[i * (n + 1) + n], c0[i * (n + 1) + n]) << "wrote past the end of row " << i;
          }
        }
  });
}

// The promise that training's bits rest on: the same chain of operations on every instruction set, in any company.
TEST(Sgemm, BitsDependOnNeitherTargetNorCompany) {
  constexpr int m = 37, n = 41, k = 517;
  const auto a = random_matrix(m, k, 4), b = random_matrix(m, n, 5);
  SgemmScratch scratch;
  std::vector<std::vector<float>> results;
  for_each_target([&] {
    std::vector<float> together(k * n), alone(k * n);
    sgemm_transposed(m, {a.data(), k}, k, {b.data(), n}, n, {together.data(), n}, Into::kOverwrite, scratch);
    for (int row = 0; row < m; ++row)
      sgemm_transposed(1, {a.data() + row * k, k}, k, {b.data() + row * n, n}, n, {alone.data(), n},
                       row == 0 ? Into::kOverwrite : Into::kAdd, scratch);
    ASSERT_EQ(together, alone);
    results.push_back(together);
  });
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(Sgemm, NoTermsGiveZero) {
  std::vector<float> c(6, 1.0f);
  SgemmScratch scratch;
  sgemm_transposed(0, {}, 2, {}, 3, {c.data(), 3}, Into::kOverwrite, scratch);
  EXPECT_EQ(c, std::vector<float>(6, 0.0f));
}

}  // namespace
}  // namespace foe
