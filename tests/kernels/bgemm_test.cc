// Products of training with operands rounded to bf16: with every instruction set, on tiles or not, the bits of the
// order that is written down in kernels/products/bf16_dot-inl.h.
#include "kernels/products/bgemm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "bf16_order.h"
#include "each_target.h"

namespace foe {
namespace {

float rounded(float x) {
  return to_float(to_bf16(x));
}

// Random numbers, a few of which are zero or, with a small scale, subnormal.
struct Matrix {
  int rows, columns;
  std::vector<float> x;

  Matrix(int rows_, int columns_, std::uint64_t seed, float scale = 1)
      : rows(rows_), columns(columns_), x(static_cast<std::size_t>(rows) * columns) {
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = random_bits(seed + 100, i) % 16 == 0 ? 0.0f : scale * static_cast<float>(random_normal(seed, i));
  }
  float at(int row, int column) const { return x[static_cast<std::size_t>(row) * columns + column]; }
  Rows<const float> view(const std::int32_t* index) const {
    return {x.data(), static_cast<std::size_t>(columns), index};
  }
  std::vector<const float*> pointers() const {
    std::vector<const float*> all;
    for (int i = 0; i < rows; ++i) all.push_back(x.data() + static_cast<std::size_t>(i) * columns);
    return all;
  }
};

// Every second row, from the end: a gather that is neither the identity nor ascending.
std::vector<std::int32_t> gather_rows(int count) {
  std::vector<std::int32_t> rows(count);
  for (int i = 0; i < count; ++i) rows[i] = 2 * (count - 1 - i) + 1;
  return rows;
}

struct Case {
  int m, n, k;
  bool gathered;
  Into into;
  float scale = 1;

  const std::int32_t* index(const std::vector<std::int32_t>& rows) const { return gathered ? rows.data() : nullptr; }
  int row(const std::vector<std::int32_t>& rows, int i) const { return gathered ? rows[i] : i; }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.m << "x" << c.n << "x" << c.k << (c.gathered ? " gathered" : "") << (c.into == Into::kAdd ? " added" : "");
}

// Below, at and past a tile, two tiles and every block.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [m, n, k] : {std::array{1, 1, 1}, {16, 16, 32}, {17, 33, 31}, {40, 20, 65}, {257, 18, 40}})
    for (const bool gathered : {false, true})
      for (const Into into : {Into::kOverwrite, Into::kAdd}) all.push_back({m, n, k, gathered, into});
  all.push_back({33, 17, 1030, false, Into::kAdd});
  all.push_back({18, 520, 40, false, Into::kAdd});
  for (const float scale : {0x1p-60f, 0x1p-63f, 0x1p-66f, 0x1p-126f})
    all.push_back({20, 20, 70, false, Into::kAdd, scale});
  return all;
}

class Bgemm : public testing::TestWithParam<Case> {};

TEST_P(Bgemm, PanelsHaveTheBitsOfTheirOrderEverywhere) {
  const Case& t = GetParam();
  const auto rows = gather_rows(t.m);
  const Matrix a(2 * t.m, t.k, 1, t.scale), b(t.k, t.n, 2, t.scale), before(2 * t.m, t.n, 3, t.scale * t.scale);
  std::vector<float> expected = before.x;
  for (int i = 0; i < t.m; ++i)
    for (int j = 0; j < t.n; ++j) {
      const int row = t.row(rows, i);
      expected[static_cast<std::size_t>(row) * t.n + j] = dot_in_bf16_order(
          t.into == Into::kAdd ? flushed(before.at(row, j)) : 0.0f, t.k, [&](int k) { return rounded(a.at(row, k)); },
          [&](int k) { return rounded(b.at(k, j)); });
    }
  Matrix b_transposed(t.n, t.k, 0);
  for (int k = 0; k < t.k; ++k)
    for (int j = 0; j < t.n; ++j) b_transposed.x[static_cast<std::size_t>(j) * t.k + k] = b.at(k, j);
  BgemmScratch scratch;
  for_each_target_of_codes([&] {
    const std::size_t stride = static_cast<std::size_t>(pair_blocks(t.k)) * kPairTile;
    AlignedBuffer<BF16> panels(pair_panels_size(t.k, t.n)), again(panels.size());
    pack_pairs(b.pointers(), t.n, panels.data(), stride);
    pack_pairs_transposed(b_transposed.pointers(), t.k, again.data(), stride);
    for (std::size_t i = 0; i < panels.size(); ++i) ASSERT_EQ(panels[i].bits, again[i].bits) << i;
    std::vector<float> c = before.x;
    bgemm_panels(t.m, a.view(t.index(rows)), {panels.data(), t.k, t.n, stride},
                 {c.data(), static_cast<std::size_t>(t.n), t.index(rows)}, t.into, scratch);
    ASSERT_EQ(c, expected);
  });
}

TEST_P(Bgemm, TransposedHasTheBitsOfItsOrderEverywhere) {
  const Case& t = GetParam();
  const auto rows = gather_rows(t.k);
  const Matrix a(2 * t.k, t.m, 1, t.scale), b(2 * t.k, t.n, 2, t.scale), before(t.m, t.n + 1, 3, t.scale * t.scale);
  std::vector<float> expected = before.x;  // with a column that belongs to something else
  for (int i = 0; i < t.m; ++i)
    for (int j = 0; j < t.n; ++j)
      expected[static_cast<std::size_t>(i) * (t.n + 1) + j] = dot_in_bf16_order(
          t.into == Into::kAdd ? flushed(before.at(i, j)) : 0.0f, t.k,
          [&](int k) { return rounded(a.at(t.row(rows, k), i)); },
          [&](int k) { return rounded(b.at(t.row(rows, k), j)); });
  BgemmScratch scratch;
  for_each_target_of_codes([&] {
    std::vector<float> c = before.x;
    bgemm_transposed(t.k, a.view(t.index(rows)), t.m, b.view(t.index(rows)), t.n,
                     {c.data(), static_cast<std::size_t>(t.n) + 1}, t.into, scratch);
    ASSERT_EQ(c, expected);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bgemm, testing::ValuesIn(cases()));

TEST(Bgemm, NoTermsGiveZero) {
  std::vector<float> c(6, 1.0f);
  BgemmScratch scratch;
  bgemm_transposed(0, {}, 2, {}, 3, {c.data(), 3}, Into::kOverwrite, scratch);
  EXPECT_EQ(c, std::vector<float>(6, 0.0f));
}

// What is not a number stays in its row, so that a run that diverges is noticed.
TEST(Bgemm, KeepsWhatIsNotANumber) {
  Matrix a(3, 40, 1), b(40, 5, 2);
  a.x[40 + 7] = std::numeric_limits<float>::quiet_NaN();
  BgemmScratch scratch;
  for_each_target_of_codes([&] {
    AlignedBuffer<BF16> panels(pair_panels_size(40, 5));
    pack_pairs(b.pointers(), 5, panels.data(), panels.size());
    std::vector<float> c(15);
    bgemm_panels(3, a.view(nullptr), {panels.data(), 40, 5, panels.size()}, {c.data(), 5}, Into::kOverwrite, scratch);
    for (int i = 0; i < 15; ++i) EXPECT_EQ(std::isnan(c[i]), i / 5 == 1) << i;
  });
}

}  // namespace
}  // namespace foe
