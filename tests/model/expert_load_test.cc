#include "model/expert_load.h"

#include <cmath>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "model/random_model.h"

namespace foe {
namespace {

using testing::ElementsAre;

// 8 experts, 2 per token, in groups of `groups`.
ModelConfig config_with(int groups) {
  ModelConfig c = small_config();
  set_layers(c, 2);
  set(c, &ExpertsConfig::count, 8);
  set(c, &ExpertsConfig::per_token, 2);
  c.expert_groups = groups;
  if (groups > 1) c.residual = Residual::kFederated;
  return c;
}

ExpertLoad load_of(const Share& share) {
  ExpertLoad load;
  for (const ExpertsShare& layer : share.layers)
    load.rows_LE.push_back(std::vector<std::int64_t>(layer.experts.size()));
  return load;
}

Routing routing_of(const Share& share, std::vector<std::int32_t> experts_J) {
  const int tokens = static_cast<int>(experts_J.size()) / 2;
  Routing routing(2, share.experts(0).size(), tokens);
  routing.experts_J = std::move(experts_J);
  for (int t = 0; t <= tokens; ++t) routing.begin_T[t] = 2 * t;
  sort_rows(share.experts(0), tokens, routing);
  return routing;
}

TEST(ExpertLoad, CountsRowsByExpertAndSelectionsByWhereTheyAre) {
  const ModelConfig c = config_with(1);
  const Placement placement = make_placement(c, Plan::kEp, 2);  // experts 0 to 3 and 4 to 7
  std::vector<ExpertLoad> ranks{load_of(placement.ranks[0]), load_of(placement.ranks[1])};
  // Rank 0 has two tokens and rank 1 one. All experts of the first are on its rank, none of the second's, and one of
  // the third's.
  const std::vector<std::int32_t> first{0, 3, 4, 7}, second{1, 7}, all{0, 3, 4, 7, 1, 7};
  for (const int layer : {0, 1, 1})
    for (int r = 0; r < 2; ++r) {
      const Share& share = placement.ranks[r];
      const Routing own = routing_of(share, r == 0 ? first : second);
      ranks[r].add(layer, c, share, own, r == 0 ? 2 : 1, routing_of(share, all));
    }
  EXPECT_THAT(rows_by_expert(c, placement, ranks),
              ElementsAre(ElementsAre(1, 1, 0, 1, 1, 0, 0, 2), ElementsAre(2, 2, 0, 2, 2, 0, 0, 4)));
  EXPECT_EQ(ranks[0].selected, 3 * 4);
  EXPECT_EQ(ranks[0].local, 3 * 2);
  EXPECT_EQ(ranks[1].selected, 3 * 2);
  EXPECT_EQ(ranks[1].local, 3 * 1);
  EXPECT_EQ(local_activation_rate(ranks), 0.5);
  EXPECT_EQ(row_balance(ranks), 1.0);  // 3 and 3 of 6 rows
}

TEST(ExpertLoad, WholeGroupsResolveTheirOwnSelections) {
  const ModelConfig c = config_with(2);
  const Placement placement = make_placement(c, Plan::kFoe, 2);
  std::vector<ExpertLoad> ranks;
  for (const Share& share : placement.ranks) {
    const Routing routing = routing_of(share, {0, 4, 3, 7, 3, 5});
    ranks.push_back(load_of(share));
    ranks.back().add(0, c, share, routing, 3, routing);
    EXPECT_EQ(ranks.back().selected, 3);
  }
  EXPECT_EQ(local_activation_rate(ranks), 1.0);
  EXPECT_THAT(rows_by_expert(c, placement, ranks)[0], ElementsAre(1, 0, 0, 2, 1, 1, 0, 1));
}

TEST(ExpertLoad, WholeExpertsOfReplicatedTokensAreLocal) {
  const ModelConfig c = config_with(1);
  const Placement placement = make_placement(c, Plan::kTp, 2);
  std::vector<ExpertLoad> ranks;
  for (const Share& share : placement.ranks) {
    const Routing routing = routing_of(share, {0, 4, 3, 2});
    ranks.push_back(load_of(share));
    ranks.back().add(0, c, share, routing, 2, routing);
  }
  EXPECT_EQ(local_activation_rate(ranks), 1.0);
  EXPECT_THAT(rows_by_expert(c, placement, ranks)[0], ElementsAre(1, 0, 1, 1, 1, 0, 0, 0));
  EXPECT_EQ(row_balance(ranks), 1.5);  // 3 and 1
}

// In plan ep every rank runs its own tokens in a dense layer. They select nothing.
TEST(ExpertLoad, DenseLayersHaveOneExpertOfAllTokens) {
  ModelConfig c = config_with(1);
  c.experts(0) = dense_experts(24);
  const Placement placement = make_placement(c, Plan::kEp, 2);
  std::vector<ExpertLoad> ranks{load_of(placement.ranks[0]), load_of(placement.ranks[1])};
  for (int r = 0; r < 2; ++r) {
    Routing routing(1, 1, 3);
    for (int t = 0; t < 2 + r; ++t) routing.begin_T[t + 1] = t + 1;
    sort_rows({0, 1}, 2 + r, routing);
    ranks[r].add(0, c, placement.ranks[r], routing, 2 + r, routing);
  }
  EXPECT_THAT(rows_by_expert(c, placement, ranks)[0], ElementsAre(5));
  EXPECT_EQ(rows_by_expert(c, placement, ranks)[1].size(), 8u);
  EXPECT_EQ(ranks[0].selected, 0);
  EXPECT_EQ(local_activation_rate(ranks), 1.0);
}

TEST(ExpertLoad, BalanceIsTheFullestOverTheMedian) {
  EXPECT_EQ(fullest_over_median({}), 1);
  EXPECT_EQ(fullest_over_median({0, 0, 0}), 1);
  EXPECT_EQ(fullest_over_median({6, 2}), 1.5);  // of two, the mean
  EXPECT_EQ(fullest_over_median({1, 9, 3}), 3);
  EXPECT_EQ(fullest_over_median({8, 1, 2, 4}), 8 / 3.0);
  EXPECT_EQ(fullest_over_median({0, 0, 5}), INFINITY);
  // The mean over layers, without those that ran nothing, and without ranks that hold nothing.
  const std::vector<ExpertLoad> ranks{
      {.rows_LE = {{3}, {0}, {1}}}, {.rows_LE = {{0, 1}, {0, 0}, {1, 0}}}, {.rows_LE = {{}, {}, {}}}};
  EXPECT_EQ(row_balance(ranks), (1.5 + 1) / 2);
}

}  // namespace
}  // namespace foe
