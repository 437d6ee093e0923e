#include "costs/expert_traffic.h"

#include <algorithm>

#include "kernels/rows/select.h"

namespace foe {
namespace {

// Returns the probability that none of `own` experts is among so many that are selected of `scored`, if all selections
// are equally likely.
double none_of(int own, int scored, int selected) {
  double none = 1;
  for (int i = 0; i < selected && own > 0; ++i)
    none *= std::max(0.0, static_cast<double>(scored - own - i)) / (scored - i);
  return none;
}

// Returns the probability that a token has none of these experts, if it selects K/H of each group's or K across groups.
// It has all that are shared.
double none_selected(const ModelConfig& config, int layer, Range experts) {
  const ExpertTable table = expert_table(config, layer);
  const int per_group = table.rows_per_group(), routed = table.routed / table.groups;
  const int parts = selection(config, layer).expert_groups;  // that are selected from, each by itself
  const int scored = table.scored() / parts, selected = config.experts(layer).per_token / parts;
  std::vector<int> own_of_part(parts);
  for (int g = 0; g < table.groups; ++g) {
    const int begin = std::max(experts.begin, g * per_group), end = std::min(experts.end, (g + 1) * per_group);
    if (begin >= end) continue;
    const int own = std::min(end, g * per_group + routed) - begin;  // of the experts that can be selected
    if (own < end - begin) return 0;
    own_of_part[g * parts / table.groups] += own;
  }
  double none = 1;
  for (const int own : own_of_part) none *= none_of(own, scored, selected);
  return none;
}

}  // namespace

ExpertTraffic expert_traffic(const ExpertTable& table, std::span<const Range> members, Dispatch dispatch,
                             std::span<const std::int32_t> begin_T, std::span<const std::int32_t> experts_J) {
  const std::vector<ExpertNode> nodes = expert_nodes(table, members, dispatch);
  const std::vector<std::int32_t> node_of = node_of_each_expert(nodes, table.with_rows());
  ExpertTraffic traffic{std::vector<std::int64_t>(members.size()), std::vector<std::int64_t>(members.size())};
  for (std::size_t t = 0; t + 1 < begin_T.size(); ++t)
    for (int i = begin_T[t], before = -1; i < begin_T[t + 1]; ++i) {
      const int node = node_of[experts_J[i]];
      if (node < 0) continue;  // of another group
      const int member = nodes[node].member;
      traffic.sums[member] += node != before ? 1 : 0;
      const bool shares_a_row = dispatch == Dispatch::kPerRank && before >= 0 && nodes[before].member == member;
      traffic.rows[member] += shares_a_row ? 0 : 1;
      before = node;
    }
  return traffic;
}

ExpectedTraffic expected_traffic(const ModelConfig& config, int layer, std::span<const Range> members,
                                 Dispatch dispatch) {
  ExpectedTraffic traffic{std::vector<double>(members.size()), std::vector<double>(members.size())};
  for (const ExpertNode& node : expert_nodes(expert_table(config, layer), members, dispatch))
    traffic.sums[node.member] += 1 - none_selected(config, layer, node.experts);
  for (std::size_t m = 0; m < members.size(); ++m)
    traffic.rows[m] = dispatch == Dispatch::kPerRank ? 1 - none_selected(config, layer, members[m]) : traffic.sums[m];
  return traffic;
}

}  // namespace foe
