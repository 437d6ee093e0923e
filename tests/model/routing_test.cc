#include "model/routing.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"

namespace foe {
namespace {

TEST(Routing, EachGroupSelectsItsShareAndWeightsComeFromOneSoftmax) {
  ModelConfig c = small_federated(4);
  ThreadPool pool(1);
  Routing routing(c.experts(0).per_token, c.experts(0).count, 1);
  std::vector<float> scores(16);
  for (int e = 0; e < 16; ++e) scores[e] = static_cast<float>((e * 7) % 16) / 4;
  double total = 0;
  for (const float s : scores) total += std::exp(s);
  const std::vector<float> kept = scores;
  select_experts(pool, expert_table(c, 0), selection(c, 0), {}, scores.data(), 1, routing);
  for (int h = 0; h < 4; ++h) {
    int best = 4 * h;
    for (int e = 4 * h; e < 4 * h + 4; ++e)
      if (kept[e] > kept[best]) best = e;
    EXPECT_EQ(routing.experts_J[h], best);
    EXPECT_NEAR(routing.weights_J[h], std::exp(kept[best]) / total, 1e-6);  // a handful of roundings of values below 1
  }
}

TEST(Routing, TiesGoToTheLowerIndex) {
  ModelConfig c = small_config();
  ThreadPool pool(1);
  Routing routing(c.experts(0).per_token, c.experts(0).count, 1);
  std::vector<float> scores(16, 0.5f);
  select_experts(pool, expert_table(c, 0), selection(c, 0), {}, scores.data(), 1, routing);
  EXPECT_EQ(routing.experts_J, (std::vector<std::int32_t>{0, 1, 2, 3}));
}

TEST(Routing, NormTopkDividesByTheSumOverAllGroups) {
  ModelConfig c = small_federated(4);
  set(c, &RouterConfig::norm, RouterNorm::kSelected);
  ThreadPool pool(1);
  Routing routing(c.experts(0).per_token, c.experts(0).count, 1);
  std::vector<float> scores(16);
  for (int e = 0; e < 16; ++e) scores[e] = std::sin(static_cast<float>(e));
  select_experts(pool, expert_table(c, 0), selection(c, 0), {}, scores.data(), 1, routing);
  float sum = 0;
  for (const float w : routing.weights_J) {
    EXPECT_LT(w, 0.9f);  // one expert per group: renormalised within the group each would be 1
    sum += w;
  }
  EXPECT_NEAR(sum, 1.0f, 1e-6f);
}

TEST(Routing, RowsAreSortedByExpertAndEverySelectionHasOne) {
  ModelConfig c = small_config();
  const Range own{4, 12};  // some selections are elsewhere
  const int T = 37, K = 4;
  Routing routing(c.experts(0).per_token, own.size(), T);
  ThreadPool pool(2);
  std::vector<float> scores(T * 16);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(random_normal(9, i));
  select_experts(pool, expert_table(c, 0), selection(c, 0), {}, scores.data(), T, routing);
  sort_rows(own, T, routing);
  int local = 0;
  for (int i = 0; i < T * K; ++i) {
    const int expert = routing.experts_J[i], row = routing.row_J[i];
    if (!own.contains(expert)) {
      EXPECT_EQ(row, -1);
      continue;
    }
    ++local;
    EXPECT_EQ(routing.token_R[row], i / K);
    EXPECT_GE(row, routing.expert_begin[expert - 4]);
    EXPECT_LT(row, routing.expert_begin[expert - 4 + 1]);
  }
  EXPECT_EQ(routing.expert_begin.front(), 0);
  EXPECT_EQ(routing.expert_begin.back(), local);
  for (std::size_t e = 0; e + 1 < routing.expert_begin.size(); ++e)
    for (int row = routing.expert_begin[e] + 1; row < routing.expert_begin[e + 1]; ++row)
      EXPECT_LT(routing.token_R[row - 1], routing.token_R[row]);
}

TEST(Routing, CombiningAHalfAndAHalfIsCombiningAll) {
  // The sum over 16 experts, and the sums over experts 0..7 and 8..15 added: the rule that lets ranks add before
  // sending.
  ModelConfig c = small_config();
  const Range own{0, 16};
  const int T = 20, D = c.hidden_size;
  Routing routing(c.experts(0).per_token, own.size(), T);
  ThreadPool pool(1);
  std::vector<float> scores(T * 16), y(T * 4 * D), whole(T * D), halves(2 * T * D);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(random_normal(4, i));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(random_normal(5, i));
  select_experts(pool, expert_table(c, 0), selection(c, 0), {}, scores.data(), T, routing);
  sort_rows(own, T, routing);
  const Range all[] = {{0, 16}}, parts[] = {{0, 8}, {8, 16}};
  combine_experts(pool, expert_table(c, 0), routing, all, y.data(), T, D, whole.data());
  combine_experts(pool, expert_table(c, 0), routing, parts, y.data(), T, D, halves.data());
  for (int i = 0; i < T * D; ++i) EXPECT_EQ(whole[i], halves[i] + halves[T * D + i]) << i;
}

}  // namespace
}  // namespace foe
