#include "costs/wire_cost.h"

#include <algorithm>

#include "costs/expert_traffic.h"
#include "kernels/rows/candidates.h"

namespace foe {
namespace {

void add_expert_exchanges(const ModelConfig& config, const Placement& placement, int rank,
                          const ExchangeOptions& options, int sequences, WireCost& cost) {
  const int own = placement.ranks[rank].member, others = placement.members - 1;
  const auto sum_bytes = static_cast<double>(wire_bytes(options.wire, config.hidden_size));
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    if (config.experts(layer).dense()) continue;
    const ExpectedTraffic traffic =
        expected_traffic(config, layer, experts_of_members(placement, rank, layer), options.dispatch);
    double rows = 0;
    for (int m = 0; m < placement.members; ++m)
      if (m != own) rows += traffic.rows[m];
    cost.all_to_all_calls += 2;
    cost.dispatch_bytes += sequences * rows * static_cast<double>(dispatched_row_bytes(config, layer, options));
    cost.return_bytes += sequences * others * traffic.sums[own] * sum_bytes;
  }
}

void add_sums(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes, int rank, Wire wire,
              std::size_t sequences, WireCost& cost) {
  // The ranks with the same sequences, in the order of their terms (RankGrid::groups).
  std::vector<int> column;
  for (int r = 0; r < static_cast<int>(placement.ranks.size()); ++r)
    if (!placement.ranks[r].idle() && placement.ranks[r].member == placement.ranks[rank].member) column.push_back(r);
  std::stable_sort(column.begin(), column.end(),
                   [&](int a, int b) { return placement.ranks[a].groups.begin < placement.ranks[b].groups.begin; });
  std::vector<int> column_nodes;
  for (const int r : column) column_nodes.push_back(nodes[r]);
  const int place = static_cast<int>(std::find(column.begin(), column.end(), rank) - column.begin());
  const SumPlan attention(placement.attention_begin);
  const auto add = [&](const SumPlan& plan, int calls, std::size_t floats, Wire how) {
    const SumTraffic one = sum_traffic(plan, column_nodes, place, floats, how);
    const auto times = static_cast<std::uint64_t>(calls);
    cost.sum_calls += calls;
    cost.sums.messages += times * one.messages;
    cost.sums.bytes += times * one.bytes;
    cost.sums.node_bytes += times * one.node_bytes;
  };
  const int L = config.num_layers();
  const std::size_t floats = sequences * config.hidden_size;
  // Attention's terms in a federated model are groups, as are those of its last sum.
  add(attention, config.federated() ? config.group_sums() : L, floats, wire);
  for (int layer = 0; layer < L && !config.federated(); ++layer)
    add(SumPlan(placement.expert_begin[layer]), 1, floats, wire);
  // In each layer, QK-norm over heads that are split over ranks adds a sum of two floats for each token.
  if (!config.federated() && config.heads().qk_norm == QkNorm::kFull) add(attention, L, 2 * sequences, Wire::kF32);
}

std::uint64_t gathered_bytes(Wire wire, std::size_t rows, int part, int candidates) {
  if (candidates == 0) return wire_bytes(wire, rows * part);
  return rows * std::min(candidates, part) * sizeof(Candidate);
}

}  // namespace

WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                          int rank, const ExchangeOptions& options, int sequences, int candidates) {
  const Share& share = placement.ranks[rank];
  WireCost cost;
  if (share.idle()) return cost;
  if (placement.group_ranks() > 1) add_sums(config, placement, nodes, rank, options.wire, sequences, cost);
  if (placement.members > 1) add_expert_exchanges(config, placement, rank, options, sequences, cost);
  if (rank != 0) cost.gather_bytes = gathered_bytes(options.wire, sequences, share.vocab.size(), candidates);
  return cost;
}

}  // namespace foe
