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
    if (config.experts(layer).dense() || !placement.ranks[rank].runs(layer)) continue;
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

void add_key_exchanges(const ModelConfig& config, const Placement& placement, int rank, KvType kv_type, int sequences,
                       WireCost& cost) {
  const Share& share = placement.ranks[rank];
  const KvShape shape{share.kv_heads.size(), config.heads().key_width, config.heads().head_value_width(), kv_type};
  const Range layers{share.stage_layers.begin, std::min(share.stage_layers.end, config.num_layers())};
  cost.all_to_all_calls += layers.size();
  cost.key_bytes +=
      std::uint64_t{1} * layers.size() * sequences * (placement.members - 1) * shape.position_wire_bytes();
}

void add_sums(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes, int rank, Wire wire,
              std::size_t sequences, WireCost& cost) {
  // The ranks with the same sequences, in the order of their terms (RankGrid::groups).
  const Share& own = placement.ranks[rank];
  std::vector<int> column;
  for (int r = 0; r < static_cast<int>(placement.ranks.size()); ++r)
    if (const Share& share = placement.ranks[r];
        !share.idle() && share.member == own.member && share.stage == own.stage)
      column.push_back(r);
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
  for (int layer = 0; layer < L; ++layer) {
    if (!own.runs(layer)) continue;
    if (config.syncs(layer)) add(attention, 1, floats, wire);
    if (config.federated()) continue;
    add(SumPlan(placement.expert_begin[layer]), 1, floats, wire);
    // QK-norm over heads that are split over ranks adds a sum of two floats for each token.
    if (config.heads().qk_norm == QkNorm::kFull) add(attention, 1, 2 * sequences, Wire::kF32);
  }
  // The terms of a federated model's last sum are groups, as are those of attention's.
  if (own.runs(L - 1) && config.has_pending_updates(L)) add(attention, 1, floats, wire);
}

std::uint64_t gathered_bytes(Wire wire, std::size_t rows, int part, int candidates) {
  if (candidates == 0) return wire_bytes(wire, rows * part);
  return rows * std::min(candidates, part) * sizeof(Candidate);
}

// Each micro-batch takes its rows from the stage before, and gives as many to the next one. The last one gives what is
// wanted of its logits to rank 0.
void add_messages(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes, int rank,
                  Wire wire, int sequences, int candidates, WireCost& cost) {
  const Share& share = placement.ranks[rank];
  const int parts = micro_batches(placement, sequences * placement.members);
  const auto send = [&](int peer, std::uint64_t bytes) {
    ++cost.send_calls;
    ++cost.sends.messages;
    cost.sends.bytes += bytes;
    if (nodes[peer] != nodes[rank]) cost.sends.node_bytes += bytes;
  };
  if (rank_of_stage(placement, rank, -1) >= 0) cost.send_calls += parts;
  if (rank == 0)
    cost.send_calls += static_cast<int>(
        std::ranges::count_if(placement.ranks, [](const Share& other) { return other.vocab.size() > 0; }));
  if (share.vocab.size() > 0) send(0, gathered_bytes(wire, sequences, share.vocab.size(), candidates));
  const int next = rank_of_stage(placement, rank, 1);
  const auto vectors = static_cast<std::uint64_t>(passed_vectors(config, share, share.stage_layers.end));
  for (std::int64_t i = 0; i < parts && next >= 0; ++i) {
    const std::size_t rows = cut_of_rows(sequences, parts, i + 1) - cut_of_rows(sequences, parts, i);
    send(next, vectors * wire_bytes(wire, rows * config.hidden_size));
  }
}

}  // namespace

WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                          int rank, const ExchangeOptions& options, int sequences, int candidates, KvType kv_type) {
  const Share& share = placement.ranks[rank];
  WireCost cost;
  if (share.idle()) return cost;
  if (placement.group_ranks() > 1) add_sums(config, placement, nodes, rank, options.wire, sequences, cost);
  if (placement.members > 1) add_expert_exchanges(config, placement, rank, options, sequences, cost);
  if (placement.split_sequences) add_key_exchanges(config, placement, rank, kv_type, sequences, cost);
  if (placement.stages > 1)
    add_messages(config, placement, nodes, rank, options.wire, sequences, candidates, cost);
  else if (rank != 0)
    cost.gather_bytes = gathered_bytes(options.wire, sequences, share.vocab.size(), candidates);
  return cost;
}

}  // namespace foe
