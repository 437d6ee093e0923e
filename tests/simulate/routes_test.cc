// What simulated tokens select, and how it is counted.
#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "costs/expert_traffic.h"
#include "model/random_model.h"
#include "simulate/route_counts.h"
#include "trace/record.h"

namespace foe {
namespace {

// The experts of a sequence's token.
std::vector<std::int32_t> experts_of(const RouteSource& routes, int layer, std::int64_t sequence, int position) {
  std::vector<std::int32_t> experts;
  routes.for_each_range(layer, sequence, position, 1, [&](int begin, int) {
    const auto row = routes.table(layer).experts(begin);
    experts.assign(row.begin(), row.end());
  });
  return experts;
}

TEST(RouteSource, DrawsWhatARouterCanSelect) {
  for (const NamedConfig& named : routing_configs()) {
    SCOPED_TRACE(named.name);
    const RouteSource routes = RouteSource::drawn(named.config, 1);
    const ExpertTable table = expert_table(named.config, 0);
    for (int position = 0; position < 50; ++position) {
      const std::vector<std::int32_t> experts = experts_of(routes, 0, 3, position);
      EXPECT_LE(static_cast<int>(experts.size()), most_entries(named.config, 0));
      EXPECT_TRUE(std::ranges::is_sorted(experts, std::less_equal()));
      for (const std::int32_t id : experts) EXPECT_LT(id, table.with_rows());
      for (int group = 0; group < table.groups; ++group)
        for (int j = 0; j < table.shared / table.groups; ++j)
          EXPECT_THAT(experts, testing::Contains(table.id_of_shared(group, j)));
    }
  }
}

TEST(RouteSource, IsAFunctionOfSeedSequenceAndLayer) {
  const ModelConfig config = small_config();
  const RouteSource a = RouteSource::drawn(config, 1), same = RouteSource::drawn(config, 1),
                    other = RouteSource::drawn(config, 2);
  std::set<std::vector<std::int32_t>> seen;
  int differ = 0;
  for (const std::int64_t sequence : {0, 1, 1000000})
    for (const int layer : {0, 1, 2}) {
      EXPECT_EQ(experts_of(a, layer, sequence, 9), experts_of(same, layer, sequence, 9));
      differ += experts_of(a, layer, sequence, 9) != experts_of(other, layer, sequence, 9);
      seen.insert(experts_of(a, layer, sequence, 9));
    }
  EXPECT_GT(differ, 4);
  EXPECT_GT(seen.size(), 4u);
}

// Of 16 experts 4 are drawn in each row: each stands in a quarter of the rows, and with skew in more or fewer.
TEST(RouteSource, DrawsExpertsAsOftenAsTheyAreLikely) {
  const ModelConfig config = small_config();
  const auto shares = [&](double skew) {
    const RouteSource routes = RouteSource::drawn(config, 5, skew);
    std::vector<double> of_experts(16);
    for (const std::int32_t id : routes.table(0).experts_J) of_experts[id] += 1.0 / routes.table(0).rows();
    std::ranges::sort(of_experts);
    return of_experts;
  };
  const std::vector<double> even = shares(0), skewed = shares(1);
  EXPECT_NEAR(even.front(), 0.25, 0.03);  // four standard deviations of 4096 draws
  EXPECT_NEAR(even.back(), 0.25, 0.03);
  EXPECT_LT(skewed.front(), 0.15);
  EXPECT_GT(skewed.back(), 0.6);
}

ModelConfig recorded_config() {
  ModelConfig config = small_config();
  set_layers(config, 2);
  set(config, &ExpertsConfig::count, 6);
  set(config, &ExpertsConfig::per_token, 3);
  return config;
}

TEST(RouteSource, HasWhatARecordHas) {
  const std::string file = Record().bytes();
  const RouteFile record(std::as_bytes(std::span(file)), "r");
  const RouteSource routes = RouteSource::recorded(recorded_config(), record, "r");
  EXPECT_THAT(experts_of(routes, 0, 0, 1), testing::ElementsAre(1, 3));
  EXPECT_THAT(experts_of(routes, 1, 1, 0), testing::ElementsAre(3, 4, 5));
  EXPECT_THAT(experts_of(routes, 1, 0, 0), testing::ElementsAre(0, 2, 5));  // as in the layer before
  EXPECT_THAT(experts_of(routes, 0, 2, 4), testing::ElementsAre(1, 3));     // the record's first sequence again
}

TEST(RouteSource, RefusesARecordOfAnotherModel) {
  const std::string file = Record().bytes();
  const RouteFile record(std::as_bytes(std::span(file)), "r");
  const auto refusal = [&](const ModelConfig& config) -> std::string {
    try {
      RouteSource::recorded(config, record, "r");
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  ModelConfig config = recorded_config();
  set_layers(config, 3);
  EXPECT_THAT(refusal(config), testing::HasSubstr("r: expected a record of 3 layers with at most 3 experts"));
  config = recorded_config();
  set(config, &ExpertsConfig::count, 8);
  EXPECT_THAT(refusal(config), testing::HasSubstr("layer 0: expected a record of 8 experts, as the model has, got 6"));
}

// Long ranges are counted by sums that were prepared, short ones row by row; both are what expert_traffic() says.
TEST(RouteCounter, CountsWhatTravels) {
  for (const ModelConfig& config : {small_config(), small_federated(2)})
    for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert}) {
      const std::vector<int> nodes{0, 0, 1, 1};
      const Placement placement = make_placement(config, config.federated() ? Plan::kFoe : Plan::kEp, 4, nodes);
      const RouteSource routes = RouteSource::drawn(config, 7);
      const RouteCounter counter(config, placement, nodes, dispatch, routes);
      LayerCounts whole, single;
      counter.clear(1, whole);
      counter.clear(1, single);
      const int member = 1, count = 5000;  // more than there are rows
      counter.add(1, 4, 30, count, member, whole);
      for (int i = 0; i < count; ++i) counter.add(1, 4, 30 + i, 1, member, single);
      EXPECT_EQ(whole.expert_rows, single.expert_rows);
      std::vector<std::int32_t> begin{0}, experts;
      for (int i = 0; i < count; ++i) {
        const std::vector<std::int32_t> row = experts_of(routes, 1, 4, 30 + i);
        experts.insert(experts.end(), row.begin(), row.end());
        begin.push_back(static_cast<std::int32_t>(experts.size()));
      }
      for (int rank = 0; rank < 4; ++rank) {
        const Share& own = placement.ranks[rank];
        const ExpertTraffic traffic =
            expert_traffic(expert_table(config, 1), experts_of_members(placement, rank, 1), dispatch, begin, experts);
        const bool owns = own.member == member;
        EXPECT_EQ(whole.rows[rank].in[0] + whole.rows[rank].in[1], owns ? 0 : traffic.rows[own.member]);
        EXPECT_EQ(whole.sums[rank].out[0] + whole.sums[rank].out[1], owns ? 0 : traffic.sums[own.member]);
        std::int64_t sent = 0;
        for (int m = 0; m < placement.members; ++m) sent += m == member ? 0 : traffic.rows[m];
        EXPECT_EQ(whole.rows[rank].out[0] + whole.rows[rank].out[1], owns ? sent : 0);
        for (const int level : {0, 1}) {
          EXPECT_EQ(whole.rows[rank].out[level], single.rows[rank].out[level]);
          EXPECT_EQ(whole.sums[rank].in[level], single.sums[rank].in[level]);
        }
      }
    }
}

}  // namespace
}  // namespace foe
