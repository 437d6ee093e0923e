// Stages of several ranks, and the parts in which a step goes through stages.
#include <vector>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "placement/placement.h"

namespace foe {
namespace {

ModelConfig staged_model(int groups) {
  ModelConfig config = paper_config();
  set(config, &AttentionConfig::query_heads, 16);
  config.expert_groups = groups;
  if (groups == 1) config.residual = Residual::kShared;
  return config;
}

// Two stages of five ranks, with two ranks in each of two groups and an idle one: each stage shares its layers among
// its ranks as if it were alone, on its nodes.
TEST(StagedPlacement, StagesShareTheirLayersUnderThePlan) {
  const ModelConfig config = staged_model(2);
  const std::vector<int> nodes{0, 0, 1, 1, 1, 2, 2, 2, 3, 3};
  const Placement placement = make_placement(config, {Plan::kFoe, {10, 6}}, 10, nodes);
  EXPECT_EQ(placement.stages, 2);
  EXPECT_EQ(placement.stage_ranks(), 5);
  EXPECT_EQ(placement.members, 2);
  EXPECT_EQ(placement.group_ranks(), 2);
  for (int rank = 0; rank < 10; ++rank) {
    const int first = rank / 5 * 5;
    const Share& share = placement.ranks[rank];
    const Placement alone = make_placement(config, Plan::kFoe, 5, {nodes.begin() + first, nodes.begin() + first + 5});
    const Share& same = alone.ranks[rank - first];
    EXPECT_EQ(share.stage, rank / 5);
    EXPECT_EQ(share.idle(), same.idle());
    EXPECT_EQ(share.member, same.member);
    EXPECT_EQ(share.groups.begin, same.groups.begin);
    for (int l = 0; l < 16 && !share.idle(); ++l) {
      EXPECT_EQ(share.runs(l), (l < 10) == (rank < 5));
      EXPECT_EQ(share.experts(l).begin, share.runs(l) ? same.experts(l).begin : 0);
      EXPECT_EQ(share.experts(l).size(), share.runs(l) ? same.experts(l).size() : 0);
    }
    EXPECT_EQ(share.vocab.size(), rank < 5 ? 0 : same.vocab.size());
    if (share.idle()) continue;
    const int other = rank_of_stage(placement, rank, rank < 5 ? 1 : -1);
    ASSERT_GE(other, 0);
    EXPECT_EQ(other / 5, 1 - rank / 5);
    EXPECT_EQ(placement.ranks[other].member, share.member);
    EXPECT_EQ(placement.ranks[other].groups.begin, share.groups.begin);
    EXPECT_EQ(experts_of_members(placement, rank, rank < 5 ? 0 : 15)[1].size(), 16);
  }
  // Ranks of plan tp have neither a group nor a member of their own.
  const Placement tp = make_placement(staged_model(1), {Plan::kTp, {}, 2}, 6);
  for (int rank = 0; rank < 6; ++rank) {
    EXPECT_EQ(rank_of_stage(tp, rank, 1), rank < 3 ? rank + 3 : -1);
    EXPECT_EQ(rank_of_stage(tp, rank, -1), rank < 3 ? -1 : rank - 3);
  }
}

// Even cuts, of which no two differ by more than one, and none before there are enough tokens.
TEST(StagedPlacement, MicroBatchesOfAStep) {
  const ModelConfig config = staged_model(1);
  const Placement pp = make_placement(config, Plan::kPp, 2), tp = make_placement(config, Plan::kTp, 2);
  EXPECT_EQ(micro_batches(tp, 4096), 1);
  EXPECT_EQ(micro_batches(pp, 1), 1);
  EXPECT_EQ(micro_batches(pp, 127), 1);
  EXPECT_EQ(micro_batches(pp, 128), 2);
  EXPECT_EQ(micro_batches(pp, 1 << 20), 4);
  EXPECT_EQ(cut_of_rows(7, 3, 0), 0);
  EXPECT_EQ(cut_of_rows(7, 3, 1), 3);
  EXPECT_EQ(cut_of_rows(7, 3, 2), 5);
  EXPECT_EQ(cut_of_rows(7, 3, 3), 7);
}

}  // namespace
}  // namespace foe
