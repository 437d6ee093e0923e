#include "model/affine.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace foe {
namespace {

TEST(ExpertTable, IdsAndScoresAreGroupByGroup) {
  const ExpertTable t{.groups = 2, .routed = 4, .shared = 2, .constant = 2, .copy = 2, .zero = 4};
  EXPECT_EQ(t.columns(), 4 + 8 + 4);
  // Group 0 has scores 0 to 5: two experts with rows, a constant, a copy, two zeros.
  const int ids[] = {0, 1, 6, 7, 8, 9, 3, 4, 10, 11, 12, 13};
  const ExpertKind kinds[] = {ExpertKind::kRouted, ExpertKind::kRouted, ExpertKind::kConstant,
                              ExpertKind::kCopy,   ExpertKind::kZero,   ExpertKind::kZero};
  for (int column = 0; column < 12; ++column) {
    EXPECT_EQ(t.id_of_score(column), ids[column]);
    EXPECT_EQ(t.group_of(ids[column]), column / 6);
    EXPECT_EQ(t.kind_of(ids[column]), kinds[column % 6]);
  }
  for (const int group : {0, 1}) {
    EXPECT_EQ(t.id_of_shared(group, 0), 2 + 3 * group);
    EXPECT_EQ(t.kind_of(2 + 3 * group), ExpertKind::kShared);
  }
  const ExpertTable plain{.groups = 2, .routed = 8};
  for (int e = 0; e < 8; ++e) EXPECT_EQ(plain.id_of_score(e), e);
}

TEST(SelectExperts, EveryTokenHasTheSharedExpertsOfAllGroups) {
  const ExpertTable table{.groups = 2, .routed = 8, .shared = 2, .copy = 2, .shared_gate = true};
  const Selection how{.router = {}, .experts = 10, .per_token = 4, .expert_groups = 2};
  const int T = 50;
  ThreadPool pool(2);
  std::vector<float> scores(T * table.columns());
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(random_normal(3, i));
  const std::vector<float> kept = scores;
  Routing routing(6, 10, T);
  select_experts(pool, table, how, {}, scores.data(), T, routing);
  int copies = 0;
  for (int t = 0; t < T; ++t) {
    const Range entries = routing.entries(t);
    ASSERT_EQ(entries.size(), 6);
    int shared = 0;
    for (int i = entries.begin; i < entries.end; ++i) {
      if (i > entries.begin) {
        EXPECT_LT(routing.experts_J[i - 1], routing.experts_J[i]);
      }
      const ExpertKind kind = table.kind_of(routing.experts_J[i]);
      copies += kind == ExpertKind::kCopy;
      if (kind != ExpertKind::kShared) continue;
      ++shared;
      EXPECT_NEAR(routing.weights_J[i], 1 / (1 + std::exp(-kept[t * 11 + 10])), 1e-6);
    }
    EXPECT_EQ(shared, 2);
  }
  EXPECT_GT(copies, 0);
}

TEST(SelectExperts, TokensMayHaveFewerExpertsThanOthers) {
  const ExpertTable table{.routed = 16};
  Selection how{.router = {.top_p = 0.5}, .experts = 16, .per_token = 5};
  const int T = 100;
  ThreadPool pool(2);
  std::vector<float> scores(T * 16);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(2 * random_normal(3, i));
  const std::vector<float> kept = scores;
  Routing routing(5, 16, T);
  select_experts(pool, table, how, {}, scores.data(), T, routing);
  int least = 5, most = 0;
  for (int t = 0; t < T; ++t) {
    std::vector<float> z(kept.begin() + t * 16, kept.begin() + (t + 1) * 16), weights(5);
    std::vector<std::int32_t> experts(5);
    const int count = select<float>(how, {}, z.data(), experts.data(), weights.data());
    ASSERT_EQ(routing.entries(t).size(), count);
    for (int j = 0; j < count; ++j) {
      EXPECT_EQ(routing.experts_J[routing.begin_T[t] + j], experts[j]);
      EXPECT_EQ(routing.weights_J[routing.begin_T[t] + j], weights[j]);
    }
    least = std::min(least, count);
    most = std::max(most, count);
  }
  EXPECT_EQ(least, 1);
  EXPECT_EQ(most, 5);
  sort_rows({0, 16}, T, routing);
  EXPECT_EQ(routing.expert_begin.back(), routing.begin_T[T]);
  for (int t = 0; t < T; ++t)
    for (int i = routing.begin_T[t]; i < routing.begin_T[t + 1]; ++i) EXPECT_EQ(routing.token_R[routing.row_J[i]], t);
}

// Every kind in both groups, into one sum of all and one of each group.
TEST(Affine, AddsWhatEachKindIsDefinedToAdd) {
  const ExpertTable table{.groups = 2, .routed = 4, .shared = 2, .constant = 4, .copy = 2, .zero = 2};
  const int T = 3, D = 21, columns = table.columns();
  std::vector<float> scores(T * columns), x(T * D), v(4 * D);
  const auto fill = [](std::vector<float>& values, int seed) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random_normal(seed, i));
  };
  fill(scores, 1), fill(x, 2), fill(v, 3);
  // All affine experts of both groups for token 0, none for token 1, a constant and a zero expert for token 2.
  Routing routing(9, 6, T);
  routing.begin_T = {0, 9, 10, 12};
  routing.experts_J = {1, 6, 7, 8, 9, 10, 11, 12, 13, 2, 7, 13};
  routing.weights_J = {9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5f, 3};
  const auto expected = [&](int t, int group, int d) {
    double sum = 0;
    for (int i = routing.begin_T[t]; i < routing.begin_T[t + 1]; ++i) {
      const int id = routing.experts_J[i], at = (id - 6) % 4;  // constant, constant, copy, zero
      if (id < 6 || (id - 6) / 4 != group || at == 3) continue;
      double a = 1, b = 0;
      const int c = 2 * group + at;
      if (at < 2) {
        const double za = std::exp(scores[t * columns + 12 + 2 * c]),
                     zb = std::exp(scores[t * columns + 12 + 2 * c + 1]);
        a = za / (za + zb), b = zb / (za + zb);
      }
      sum += routing.weights_J[i] * (a * x[t * D + d] + (at < 2 ? b * v[c * D + d] : 0));
    }
    return sum;
  };
  ThreadPool pool(2);
  const AffineInputs in{scores.data(), x.data(), v.data()};
  std::vector<float> sums(2 * T * D), whole(T * D);
  const Range parts[] = {affine_experts(table, {0, 1}), affine_experts(table, {1, 2})};
  sum_affine(pool, table, routing, in, parts, T, D, sums.data());
  const Range all[] = {affine_experts(table, {0, 2})};
  sum_affine(pool, table, routing, in, all, T, D, whole.data());
  for (int t = 0; t < T; ++t)
    for (int d = 0; d < D; ++d) {
      const int i = t * D + d;
      // Weights of 36 in all, values within 5: some ten roundings of sums up to 200.
      EXPECT_NEAR(sums[i], expected(t, 0, d), 12 * 0x1p-24 * 200);
      EXPECT_NEAR(sums[T * D + i], expected(t, 1, d), 12 * 0x1p-24 * 200);
      EXPECT_NEAR(whole[i], expected(t, 0, d) + expected(t, 1, d), 12 * 0x1p-24 * 200);
      if (t == 1) {
        EXPECT_EQ(sums[i], 0);
      }
    }
}

// A layer of one copy expert with weight 1 adds x exactly.
TEST(Affine, ACopyIsExact) {
  const ExpertTable table{.copy = 1};
  Routing routing(1, 0, 1);
  routing.begin_T = {0, 1};
  routing.experts_J = {0};
  routing.weights_J = {1};
  const std::vector<float> x{1.5f, -2.25f, 3e-30f};
  std::vector<float> sums(3);
  ThreadPool pool(1);
  const Range all[] = {{0, 1}};
  sum_affine(pool, table, routing, {nullptr, x.data(), nullptr}, all, 1, 3, sums.data());
  EXPECT_EQ(sums, x);
}

}  // namespace
}  // namespace foe
