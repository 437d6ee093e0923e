#include "placement/placement.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "core/sum_blocks.h"
#include "core/sum_tree.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

ModelConfig federated_model(int groups = 8) {
  ModelConfig config = paper_config();
  set(config, &AttentionConfig::query_heads, 16);
  config.expert_groups = groups;
  return config;
}

ModelConfig shared_model() {
  ModelConfig config = federated_model(1);
  config.residual = Residual::kShared;
  return config;
}

using Part = std::function<Range(const Share&)>;

// The ranks' ranges follow each other without holes or overlaps and make up [0, total), the larger ones first, and none
// has more than one `unit` more than another; the last unit may be a short one.
void expect_cut(const Placement& placement, const Part& part, int total, int unit) {
  int at = 0, smallest = total, most = 0, least = total;
  for (const Share& share : placement.ranks) {
    const Range range = part(share);
    EXPECT_EQ(range.begin, at);
    EXPECT_LE(range.begin, range.end);
    EXPECT_LE(range.size(), smallest) << "a larger share after a smaller one";
    EXPECT_TRUE(range.size() == 0 || range.begin % unit == 0) << "begins within a unit";
    most = std::max(most, (range.size() + unit - 1) / unit);
    least = std::min(least, (range.size() + unit - 1) / unit);
    smallest = range.size();
    at = range.end;
  }
  EXPECT_EQ(at, total);
  EXPECT_LE(most - least, 1);
}

void expect_same(const Placement& placement, const Part& part, Range expected) {
  for (const Share& share : placement.ranks) {
    EXPECT_EQ(part(share).begin, expected.begin);
    EXPECT_EQ(part(share).end, expected.end);
  }
}

constexpr auto kGroups = [](const Share& s) { return s.groups; };
constexpr auto kKvHeads = [](const Share& s) { return s.kv_heads; };
constexpr auto kExperts = [](const Share& s) { return s.experts(0); };
constexpr auto kWidth = [](const Share& s) { return s.expert_width(0); };
constexpr auto kVocab = [](const Share& s) { return s.vocab; };

// A rank has the heads, or hidden units, of the blocks that are its terms of a sum.
void expect_terms(const Placement& placement, const std::vector<int>& begin, const SumBlocks& blocks,
                  const Part& part) {
  ASSERT_EQ(begin.size(), placement.ranks.size() + 1);
  EXPECT_EQ(begin.front(), 0);
  EXPECT_EQ(begin.back(), blocks.count());
  for (std::size_t rank = 0; rank < placement.ranks.size(); ++rank) {
    const Range own = part(placement.ranks[rank]), terms = blocks.cover({begin[rank], begin[rank + 1]});
    EXPECT_EQ(own.begin, terms.begin);
    EXPECT_EQ(own.end, terms.end);
  }
}

TEST(Placement, TpHoldsEverythingOnce) {
  // Sizes that divide evenly, and some that do not.
  for (const auto& [kv_heads, experts, vocab] : {std::tuple{8, 64, 50304}, {5, 60, 1000}, {1, 7, 17}, {19, 128, 129}})
    for (int ranks = 1; ranks <= 17; ++ranks) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, " << kv_heads << " heads, " << experts << " experts");
      ModelConfig config = shared_model();
      set(config, &AttentionConfig::kv_heads, kv_heads);
      set(config, &ExpertsConfig::count, experts);
      config.vocab_size = vocab;
      const int blocks = std::min(kv_heads, kSumBlocks);
      if (ranks > std::max({blocks, experts, (vocab + 15) / 16})) continue;  // see RefusesIdleRanks
      const Placement placement = make_placement(config, Plan::kTp, ranks);
      EXPECT_EQ(placement.plan, Plan::kTp);
      ASSERT_EQ(placement.ranks.size(), static_cast<std::size_t>(ranks));
      if (kv_heads <= kSumBlocks) expect_cut(placement, kKvHeads, kv_heads, 1);
      expect_terms(placement, placement.attention_begin, head_blocks(config), kKvHeads);
      expect_cut(placement, kVocab, vocab, 16);
      expect_same(placement, kWidth, {0, 384});  // whole experts
      expect_same(placement, kGroups, {0, 1});   // one stream, on every rank
      int at = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range own = placement.ranks[rank].experts(0);
        EXPECT_EQ(own.begin, at);
        EXPECT_EQ(placement.expert_begin[0][rank], own.begin);  // one group: experts are their sum's terms
        EXPECT_LT(own.size(), 1.25 * experts / ranks + 1);
        at = own.end;
      }
      EXPECT_EQ(at, experts);
      EXPECT_EQ(placement.expert_begin[0].back(), experts);
    }
}

// Every partial sum travels: where heads and experts are powers of two, a rank has one, and three ranks have few.
TEST(Placement, TpHasFewPartialSums) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    const bool even = std::has_single_bit(static_cast<unsigned>(ranks));
    const Placement placement = make_placement(shared_model(), Plan::kTp, ranks);
    for (const auto& [begin, most] :
         {std::pair{placement.attention_begin, even ? 1u : 2u}, {placement.expert_begin[0], even ? 1u : 4u}})
      for (int rank = 0; rank < ranks; ++rank)
        EXPECT_LE(maximal_subtrees(begin[rank], begin[rank + 1], begin.back()).size(), most) << rank << " of " << ranks;
  }
}

TEST(Placement, FoeKeepsGroupsTogether) {
  for (const int groups : {2, 4, 8})
    for (int ranks = 1; ranks <= groups; ++ranks) {
      SCOPED_TRACE(testing::Message() << groups << " groups on " << ranks << " ranks");
      const ModelConfig config = federated_model(groups);
      const Placement placement = make_placement(config, Plan::kFoe, ranks);
      EXPECT_EQ(placement.plan, Plan::kFoe);
      ASSERT_EQ(placement.ranks.size(), static_cast<std::size_t>(ranks));
      expect_cut(placement, kGroups, groups, 1);
      expect_cut(placement, kKvHeads, 8, 8 / groups);
      expect_cut(placement, kExperts, 64, 64 / groups);
      expect_cut(placement, kVocab, config.vocab_size, 16);
      expect_same(placement, kWidth, {0, 384});  // whole experts
      for (int rank = 0; rank < ranks; ++rank) {
        const Share& share = placement.ranks[rank];
        EXPECT_EQ(share.streams(), share.groups.size());
        // Group h is heads [h M/H, (h+1) M/H) and experts [h E/H, (h+1) E/H), all on the rank that owns it.
        for (int head = 0; head < 8; ++head)
          EXPECT_EQ(share.kv_heads.contains(head), share.groups.contains(head / (8 / groups)));
        for (int expert = 0; expert < 64; ++expert)
          EXPECT_EQ(share.experts(0).contains(expert), share.groups.contains(expert / (64 / groups)));
        // Its terms of every sum are its groups.
        for (const auto& begin : {placement.attention_begin, placement.expert_begin[0]}) {
          EXPECT_EQ(begin[rank], share.groups.begin);
          EXPECT_EQ(begin[rank + 1], share.groups.end);
        }
      }
    }
}

TEST(Placement, EpSplitsNothingButTheSetOfExperts) {
  for (const int experts : {64, 7})
    for (int ranks = 1; ranks <= 7; ++ranks) {
      SCOPED_TRACE(testing::Message() << experts << " experts on " << ranks << " ranks");
      ModelConfig config = shared_model();
      set(config, &ExpertsConfig::count, experts);
      const Placement placement = make_placement(config, Plan::kEp, ranks);
      EXPECT_EQ(placement.plan, Plan::kEp);
      ASSERT_EQ(placement.ranks.size(), static_cast<std::size_t>(ranks));
      expect_cut(placement, kExperts, experts, 1);
      expect_same(placement, kWidth, {0, 384});
      expect_same(placement, kGroups, {0, 1});
      expect_same(placement, kKvHeads, {0, 8});
      expect_same(placement, kVocab, {0, 50304});  // each rank scores its own sequences
      EXPECT_EQ(placement.members, ranks);
      EXPECT_EQ(placement.attention_begin, (std::vector<int>{0, 8}));
      EXPECT_EQ(placement.expert_begin[0], (std::vector<int>{0, experts}));
      for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(placement.ranks[rank].member, rank);
    }
}

// With more ranks than groups every group has the same number of them, which cut its experts; the rest is idle.
TEST(Placement, FoeSpreadsGroupsOverRanks) {
  for (const int groups : {2, 4, 8})
    for (int ranks = groups + 1; ranks <= 24; ++ranks) {
      SCOPED_TRACE(testing::Message() << groups << " groups on " << ranks << " ranks");
      const Placement placement = make_placement(federated_model(groups), Plan::kFoe, ranks);
      ASSERT_EQ(placement.members, ranks / groups);
      ASSERT_EQ(placement.group_ranks(), groups);
      int idle = 0, owners_of_expert[64] = {};
      for (const Share& share : placement.ranks) {
        idle += share.idle() ? 1 : 0;
        for (int e = share.experts(0).begin; e < share.experts(0).end; ++e) ++owners_of_expert[e];
        if (share.idle()) {
          EXPECT_EQ(share.kv_heads.size() + share.experts(0).size() + share.vocab.size(), 0);
          continue;
        }
        const int g = share.groups.begin;
        EXPECT_EQ(share.groups.size(), 1);
        EXPECT_EQ(share.kv_heads.begin, g * 8 / groups);
        EXPECT_EQ(share.kv_heads.size(), 8 / groups);
        EXPECT_TRUE(share.experts(0).begin >= g * 64 / groups && share.experts(0).end <= (g + 1) * 64 / groups);
        EXPECT_EQ(share.expert_width(0).size(), 384);
        EXPECT_TRUE(share.experts(0).size() == 64 / groups / placement.members ||
                    share.experts(0).size() == 64 / groups / placement.members + 1);
      }
      EXPECT_EQ(idle, ranks % groups);
      EXPECT_THAT(owners_of_expert, testing::Each(1));
      for (int rank = 0; rank < ranks; ++rank) {
        if (placement.ranks[rank].idle()) continue;
        const std::vector<Range> experts = experts_of_members(placement, rank, 0);
        const Share& own = placement.ranks[rank];
        EXPECT_EQ(experts[own.member].begin, own.experts(0).begin);
        EXPECT_EQ(experts.front().begin, own.groups.begin * 64 / groups);
        EXPECT_EQ(experts.back().end, own.groups.end * 64 / groups);
      }
    }
}

// The ranks that hold group g, which are on these nodes.
std::vector<int> nodes_of_group(const Placement& placement, const std::vector<int>& nodes, int g) {
  std::vector<int> on;
  for (std::size_t r = 0; r < nodes.size(); ++r)
    if (!placement.ranks[r].idle() && placement.ranks[r].groups.contains(g)) on.push_back(nodes[r]);
  return on;
}

TEST(Placement, AGroupStaysOnOneNodeIfItCan) {
  using Nodes = std::vector<int>;
  const auto groups_on = [](int groups, const Nodes& nodes) {
    const Placement placement =
        make_placement(federated_model(groups), Plan::kFoe, static_cast<int>(nodes.size()), nodes);
    std::vector<Nodes> on;
    for (int g = 0; g < groups; ++g) on.push_back(nodes_of_group(placement, nodes, g));
    return on;
  };
  EXPECT_EQ(groups_on(2, {0, 0, 1, 1}), (std::vector<Nodes>{{0, 0}, {1, 1}}));
  EXPECT_EQ(groups_on(2, {0, 1, 0, 1}), (std::vector<Nodes>{{0, 0}, {1, 1}}));  // ranks dealt out in turn
  // Seven ranks in groups of three: one rank is idle, not a group torn.
  EXPECT_EQ(groups_on(2, {0, 0, 0, 1, 1, 1, 1}), (std::vector<Nodes>{{0, 0, 0}, {1, 1, 1}}));
  // Three and five ranks, both groups of four: one of them must be torn.
  EXPECT_EQ(groups_on(2, {0, 0, 0, 1, 1, 1, 1, 1}), (std::vector<Nodes>{{1, 1, 1, 1}, {0, 0, 0, 1}}));
  // One rank on the first node, which is idle then: both groups fit on the second.
  EXPECT_EQ(groups_on(2, {0, 1, 1, 1, 1}), (std::vector<Nodes>{{1, 1}, {1, 1}}));
  // No way around it: nine ranks, three on each node, four groups of two.
  const auto spread = groups_on(4, {0, 0, 0, 1, 1, 1, 2, 2, 2});
  EXPECT_EQ(spread, (std::vector<Nodes>{{0, 0}, {1, 1}, {2, 2}, {0, 1}}));
}

// Each layer is cut by itself. Members that share groups all have a dense layer's experts.
TEST(Placement, LayersOfDifferentShapes) {
  ModelConfig config = shared_model();
  config.experts(0) = dense_experts(1000);
  config.experts(1).count = 12;
  const Placement tp = make_placement(config, Plan::kTp, 4), ep = make_placement(config, Plan::kEp, 14);
  expect_same(tp, kExperts, {0, 1});
  expect_terms(tp, tp.expert_begin[0], width_blocks(config, 0), kWidth);
  expect_cut(
      tp, [](const Share& s) { return s.experts(1); }, 12, 1);
  expect_cut(
      tp, [](const Share& s) { return s.experts(2); }, 64, 1);
  expect_same(tp, [](const Share& s) { return s.expert_width(2); }, {0, 384});
  EXPECT_EQ(tp.expert_begin[1], (std::vector<int>{0, 3, 6, 9, 12}));
  expect_same(ep, kExperts, {0, 1});
  expect_same(ep, kWidth, {0, 1000});
  EXPECT_EQ(ep.expert_begin[0], (std::vector<int>{0, 8}));
  expect_cut(
      ep, [](const Share& s) { return s.experts(1); }, 12, 1);  // of 14 ranks two have none
  EXPECT_EQ(experts_of_members(ep, 3, 2)[13].end, 64);
  ModelConfig federated = federated_model(4);
  federated.experts(1).count = 12;
  const Placement foe = make_placement(federated, Plan::kFoe, 8);
  EXPECT_EQ(foe.ranks[3].experts(1).begin, 5);  // the second of group 1's two ranks has the last of its three experts
  EXPECT_EQ(foe.ranks[3].experts(1).end, 6);
  EXPECT_EQ(foe.expert_begin[1], foe.expert_begin[0]);  // terms are groups
}

TEST(Placement, ADenseModelSplitsItsOneExpert) {
  ModelConfig config = shared_model();
  make_dense(config);
  for (const int width : {384, 1000, 11008, 24}) {
    set(config, &ExpertsConfig::width, width);
    for (int ranks = 1; ranks <= 9; ++ranks) {
      const Placement placement = make_placement(config, Plan::kTp, ranks);
      const SumBlocks blocks = width_blocks(config, 0);
      EXPECT_EQ(blocks.count(), std::min((width + 127) / 128, 8));
      expect_same(placement, kExperts, {0, 1});
      expect_terms(placement, placement.expert_begin[0], blocks, kWidth);
      for (int b = 1; b < blocks.count(); ++b) EXPECT_EQ(blocks.begin[b] % kSumBlockUnit, 0);
    }
  }
}

TEST(Placement, GroupedRoutingOnASharedResidualIsTpOrEp) {
  ModelConfig config = federated_model();
  config.residual = Residual::kShared;
  for (const Plan plan : {Plan::kTp, Plan::kEp}) expect_same(make_placement(config, plan, 2), kGroups, {0, 1});
  EXPECT_EQ(default_plan(config), Plan::kTp);
}

// One group has nothing to federate.
TEST(Placement, DefaultPlanFollowsTheModel) {
  EXPECT_EQ(default_plan(shared_model()), Plan::kTp);
  EXPECT_EQ(default_plan(federated_model()), Plan::kFoe);
  EXPECT_EQ(default_plan(federated_model(1)), Plan::kTp);
}

template <typename Matcher>
void expect_error(const std::function<void()>& call, Matcher&& matcher) {
  try {
    call();
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), matcher);
  }
}

TEST(Placement, ErrorsNameExpectedAndActual) {
  for (const int ranks : {0, -1})
    expect_error([&] { make_placement(shared_model(), Plan::kTp, ranks); },
                 HasSubstr("ranks: expected at least 1, got " + std::to_string(ranks)));
  expect_error([] { make_placement(shared_model(), Plan::kFoe, 2); },
               AllOf(HasSubstr("plan foe needs a federated model"), HasSubstr("\"shared\""),
                     HasSubstr("1 expert group"), HasSubstr("plan tp")));
  for (const Plan plan : {Plan::kTp, Plan::kEp})
    expect_error([&] { make_placement(federated_model(), plan, 2); },
                 AllOf(HasSubstr(std::string("plan ") + to_string(plan) + " needs a model with a shared residual"),
                       HasSubstr("8 groups"), HasSubstr("plan foe")));
  ModelConfig dense = shared_model();
  make_dense(dense);
  expect_error([&] { make_placement(dense, Plan::kEp, 1); },
               AllOf(HasSubstr("plan ep needs a model with experts"), HasSubstr("is dense"), HasSubstr("plan tp")));
  EXPECT_EQ(make_placement(federated_model(), Plan::kFoe, 64).members, 8);
  expect_error([] { make_placement(federated_model(), Plan::kFoe, 65); },
               AllOf(HasSubstr("plan foe: expected at most 64 ranks, one for each expert"), HasSubstr("got 65")));
  EXPECT_EQ(make_placement(shared_model(), Plan::kEp, 64).ranks.size(), 64u);
  expect_error([] { make_placement(shared_model(), Plan::kEp, 65); },
               AllOf(HasSubstr("plan ep: expected at most 64 ranks, one for each expert"), HasSubstr("got 65")));
}

TEST(Placement, RefusesIdleRanks) {
  ModelConfig config = shared_model();
  set(config, &AttentionConfig::kv_heads, 2);
  set(config, &ExpertsConfig::count, 3);
  config.vocab_size = 60;  // 4 panels
  EXPECT_EQ(make_placement(config, Plan::kTp, 4).ranks.size(), 4u);
  expect_error([&] { make_placement(config, Plan::kTp, 5); },
               AllOf(HasSubstr("plan tp: expected at most 4 ranks"), HasSubstr("got 5")));
}

TEST(Placement, PlanNamesRoundTrip) {
  for (const Plan plan : {Plan::kTp, Plan::kFoe, Plan::kEp, Plan::kPp}) EXPECT_EQ(parse_plan(to_string(plan)), plan);
  for (const char* name : {"", "TP", "eps", "foe "})
    expect_error([&] { parse_plan(name); }, HasSubstr(std::string("plan: expected tp, foe, ep or pp, got ") + name));
}

// The layers of each rank, one after the other; everything else is as on one rank.
std::vector<int> layers_of_stages(const Placement& placement, int layers) {
  std::vector<int> counts;
  int at = 0;
  EXPECT_EQ(placement.stages, static_cast<int>(placement.ranks.size()));
  for (std::size_t rank = 0; rank < placement.ranks.size(); ++rank) {
    const Share& share = placement.ranks[rank];
    EXPECT_EQ(share.stage, static_cast<int>(rank));
    EXPECT_EQ(share.stage_layers.begin, at);
    at = share.stage_layers.end;
    counts.push_back(share.stage_layers.size());
    for (int l = 0; l < layers; ++l) EXPECT_EQ(share.experts(l).size() > 0, share.runs(l)) << rank << ", " << l;
    EXPECT_EQ(share.vocab.size() > 0, at == layers);
    EXPECT_EQ(rank_of_stage(placement, static_cast<int>(rank), 1), at == layers ? -1 : static_cast<int>(rank) + 1);
    EXPECT_EQ(rank_of_stage(placement, static_cast<int>(rank), -1), static_cast<int>(rank) - 1);
  }
  EXPECT_EQ(at, layers);
  EXPECT_EQ(placement.members, 1);
  EXPECT_EQ(placement.group_ranks(), 1);
  return counts;
}

TEST(Placement, PpSharesLayersByTheirSize) {
  using testing::ElementsAre;
  for (ModelConfig config : {shared_model(), federated_model()}) {
    const auto layers = [&](int ranks, std::vector<int> given = {}) {
      const Placement placement = make_placement(config, {Plan::kPp, std::move(given)}, ranks);
      expect_same(placement, kKvHeads, {0, 8});
      expect_same(placement, kGroups, {0, config.federated() ? 8 : 1});
      return layers_of_stages(placement, config.num_layers());
    };
    EXPECT_THAT(layers(1), ElementsAre(16));
    // The head is less than a layer of 64 experts here, and more than 13 with a vocabulary of a million.
    EXPECT_THAT(layers(2), ElementsAre(8, 8));
    EXPECT_THAT(layers(3), ElementsAre(6, 5, 5));
    EXPECT_THAT(layers(5), ElementsAre(4, 3, 3, 3, 3));
    EXPECT_EQ(layers(16), std::vector<int>(16, 1));
    EXPECT_THAT(layers(4, {1, 2, 3, 10}), ElementsAre(1, 2, 3, 10));
    config.vocab_size = 1 << 20;
    EXPECT_THAT(layers(3), ElementsAre(8, 7, 1));
    if (config.federated()) continue;
    config.vocab_size = 1000;
    for (int l = 0; l < 8; ++l) config.experts(l) = dense_experts(16);  // layers that are next to nothing
    EXPECT_THAT(layers(2), ElementsAre(12, 4));
  }
}

TEST(Placement, PpRefusesLayersThatAreNotTheModels) {
  const ModelConfig config = shared_model();
  expect_error([&] { make_placement(config, Plan::kPp, 17); },
               HasSubstr("stages: expected at most 16, one for each layer, got 17"));
  const auto refusal = [&](const PlanChoice& choice, int ranks, const char* text) {
    expect_error([&] { make_placement(config, choice, ranks); }, HasSubstr(text));
  };
  refusal({Plan::kPp, {8, 9}}, 2, "layers of stages: expected the model's 16 layers together, got 17");
  refusal({Plan::kPp, {16, 0}}, 2, "layers of stages: expected at least 1 for each stage, got 0");
  refusal({Plan::kTp, {8, 8}, 4}, 4, "layers of stages: expected a number for each of 4 stages, got 2");
  refusal({Plan::kPp, {5, 5, 6}}, 2, "stages: expected one for each of 2 ranks in plan pp, got 3");
  refusal({Plan::kPp, {}, 2}, 4, "stages: expected one for each of 4 ranks in plan pp, got 2");
  refusal({Plan::kEp, {}, 2}, 5, "stages: expected a number that divides the 5 ranks, got 2");
  refusal({Plan::kTp, {}, 17}, 17, "stages: expected at most 16, one for each layer, got 17");
  refusal({Plan::kEp, {}, 2}, 130, "plan ep: expected at most 64 ranks, one for each expert, got 65");
  refusal({Plan::kPp}, 0, "ranks: expected at least 1, got 0");
}

}  // namespace
}  // namespace foe
