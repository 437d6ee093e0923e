#include "placement/expert_nodes.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "core/sum_tree.h"

namespace foe {
namespace {

// Appends the subtrees that one member's experts make up.
void add_subtrees(const ExpertTable& table, Range experts, int member, std::vector<ExpertNode>& nodes) {
  const int leaves = expert_terms(table, {0, table.with_rows()}).end;
  const Range terms = expert_terms(table, experts);
  for (const Subtree& tree : maximal_subtrees(terms.begin, terms.end, leaves))
    if (const Range own = experts_of_terms(table, {tree.first, tree.last}); own.size() > 0)
      nodes.push_back({own, tree.first, member});
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

int expert_tree_index(const ExpertTable& table, int expert) {
  const int per_group = table.rows_per_group();
  return expert / per_group * static_cast<int>(std::bit_ceil(static_cast<unsigned>(per_group))) + expert % per_group;
}

Range expert_terms(const ExpertTable& table, Range experts) {
  const auto term = [&](int expert) {
    return expert < table.with_rows() ? expert_tree_index(table, expert)
                                      : expert_tree_index(table, table.with_rows() - 1) + 1;
  };
  return {term(experts.begin), term(experts.end)};
}

Range experts_of_terms(const ExpertTable& table, Range terms) {
  const int per_group = table.rows_per_group();
  const int padded = static_cast<int>(std::bit_ceil(static_cast<unsigned>(per_group)));
  const auto first_from = [=](int term) { return term / padded * per_group + std::min(term % padded, per_group); };
  return {first_from(terms.begin), first_from(terms.end)};
}

std::vector<ExpertNode> expert_nodes(const ExpertTable& table, std::span<const Range> members, Dispatch dispatch) {
  std::vector<ExpertNode> nodes;
  for (std::size_t m = 0; m < members.size(); ++m) {
    const int member = static_cast<int>(m);
    if (dispatch == Dispatch::kPerRank)
      add_subtrees(table, members[m], member, nodes);
    else
      for (int e = members[m].begin; e < members[m].end; ++e)
        nodes.push_back({{e, e + 1}, expert_tree_index(table, e), member});
  }
  return nodes;
}

std::vector<std::int32_t> node_of_each_expert(const std::vector<ExpertNode>& nodes, int experts) {
  std::vector<std::int32_t> node_of(experts, -1);
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (int e = nodes[n].experts.begin; e < nodes[n].experts.end; ++e) node_of[e] = static_cast<std::int32_t>(n);
  return node_of;
}

int dispatched_entries(const ModelConfig& config, int layer, Dispatch dispatch) {
  if (dispatch == Dispatch::kPerExpert) return 1;
  return most_summed_entries(config, layer);
}

std::size_t dispatched_row_bytes(const ModelConfig& config, int layer, const ExchangeOptions& options) {
  return wire_bytes(options.wire, config.hidden_size) +
         dispatched_entries(config, layer, options.dispatch) * (sizeof(std::int32_t) + sizeof(float));
}

}  // namespace foe
