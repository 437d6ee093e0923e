#include "placement/expert_nodes.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "core/sum_tree.h"

namespace foe {
namespace {

// The subtrees that one member's experts make up.
void add_subtrees(const ModelConfig& config, Range experts, int member, std::vector<ExpertNode>& nodes) {
  const int leaves = expert_terms(config, {0, config.num_experts}).end;
  const Range terms = expert_terms(config, experts);
  for (const Subtree& tree : maximal_subtrees(terms.begin, terms.end, leaves))
    if (const Range own = experts_of_terms(config, {tree.first, tree.last}); own.size() > 0)
      nodes.push_back({own, tree.first, member});
}

// The probability that a token selects none of these experts: K/H of each group of E/H, all choices equally likely.
double none_selected(const ModelConfig& config, Range experts) {
  const int per_group = config.num_experts / config.expert_groups;
  const int selected = config.num_experts_per_tok / config.expert_groups;
  double none = 1;
  for (int g = 0; g < config.expert_groups; ++g) {
    const int begin = std::max(experts.begin, g * per_group), end = std::min(experts.end, (g + 1) * per_group);
    for (int i = 0; i < selected && begin < end; ++i)
      none *= std::max(0.0, static_cast<double>(per_group - (end - begin) - i)) / (per_group - i);
  }
  return none;
}

}  // namespace

const char* to_string(Dispatch dispatch) {
  return dispatch == Dispatch::kPerRank ? "rank" : "expert";
}

Dispatch parse_dispatch(const std::string& name) {
  if (name == "rank") return Dispatch::kPerRank;
  if (name == "expert") return Dispatch::kPerExpert;
  fail("dispatch: expected rank or expert, got {}", name);
}

int expert_tree_index(const ModelConfig& config, int expert) {
  const int per_group = config.experts() / config.expert_groups;
  return expert / per_group * static_cast<int>(std::bit_ceil(static_cast<unsigned>(per_group))) + expert % per_group;
}

Range expert_terms(const ModelConfig& config, Range experts) {
  const auto term = [&](int expert) {
    return expert < config.experts() ? expert_tree_index(config, expert)
                                     : expert_tree_index(config, config.experts() - 1) + 1;
  };
  return {term(experts.begin), term(experts.end)};
}

Range experts_of_terms(const ModelConfig& config, Range terms) {
  const int per_group = config.experts() / config.expert_groups;
  const int padded = static_cast<int>(std::bit_ceil(static_cast<unsigned>(per_group)));
  const auto first_from = [=](int term) { return term / padded * per_group + std::min(term % padded, per_group); };
  return {first_from(terms.begin), first_from(terms.end)};
}

std::vector<ExpertNode> expert_nodes(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch) {
  std::vector<ExpertNode> nodes;
  for (std::size_t m = 0; m < members.size(); ++m) {
    const int member = static_cast<int>(m);
    if (dispatch == Dispatch::kPerRank)
      add_subtrees(config, members[m], member, nodes);
    else
      for (int e = members[m].begin; e < members[m].end; ++e)
        nodes.push_back({{e, e + 1}, expert_tree_index(config, e), member});
  }
  return nodes;
}

std::vector<std::int32_t> node_of_each_expert(const std::vector<ExpertNode>& nodes, int experts) {
  std::vector<std::int32_t> node_of(experts, -1);
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (int e = nodes[n].experts.begin; e < nodes[n].experts.end; ++e) node_of[e] = static_cast<std::int32_t>(n);
  return node_of;
}

Range selected_entries(const ModelConfig& config, std::span<const Range> members) {
  const int K = config.num_experts_per_tok, H = config.expert_groups;
  if (!config.federated()) return {0, K};
  const int group = members.front().begin / (config.num_experts / H);
  return {group * (K / H), (group + 1) * (K / H)};
}

int dispatched_entries(const ModelConfig& config, Dispatch dispatch) {
  if (dispatch == Dispatch::kPerExpert) return 1;
  return config.num_experts_per_tok / (config.federated() ? config.expert_groups : 1);
}

std::size_t dispatched_row_bytes(const ModelConfig& config, const ExchangeOptions& options) {
  return wire_bytes(options.wire, config.hidden_size) +
         dispatched_entries(config, options.dispatch) * (sizeof(std::int32_t) + sizeof(float));
}

ExpertTraffic expert_traffic(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch,
                             std::span<const std::int32_t> experts_TK) {
  const std::vector<ExpertNode> nodes = expert_nodes(config, members, dispatch);
  const std::vector<std::int32_t> node_of = node_of_each_expert(nodes, config.num_experts);
  const Range entries = selected_entries(config, members);
  const std::size_t K = config.num_experts_per_tok;
  ExpertTraffic traffic{std::vector<std::int64_t>(members.size()), std::vector<std::int64_t>(members.size())};
  for (std::size_t token = 0; token < experts_TK.size(); token += K)
    for (int i = entries.begin, before = -1; i < entries.end; ++i) {
      const int node = node_of[experts_TK[token + i]], member = nodes[node].member;
      traffic.sums[member] += node != before ? 1 : 0;
      const bool shares_a_row = dispatch == Dispatch::kPerRank && before >= 0 && nodes[before].member == member;
      traffic.rows[member] += shares_a_row ? 0 : 1;
      before = node;
    }
  return traffic;
}

ExpectedTraffic expected_traffic(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch) {
  ExpectedTraffic traffic{std::vector<double>(members.size()), std::vector<double>(members.size())};
  for (const ExpertNode& node : expert_nodes(config, members, dispatch))
    traffic.sums[node.member] += 1 - none_selected(config, node.experts);
  for (std::size_t m = 0; m < members.size(); ++m)
    traffic.rows[m] = dispatch == Dispatch::kPerRank ? 1 - none_selected(config, members[m]) : traffic.sums[m];
  return traffic;
}

}  // namespace foe
