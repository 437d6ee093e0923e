#include "costs/wire_cost.h"

#include <algorithm>

#include "costs/expert_traffic.h"
#include "kernels/rows/candidates.h"
#include "placement/step_parts.h"

namespace foe {
namespace {

void add_rows_to_experts(const ModelConfig& config, const Placement& placement, int rank, int layer,
                         const ExchangeOptions& options, int sequences, WireCost& cost) {
  const ExpectedTraffic traffic =
      expected_traffic(config, layer, experts_of_members(placement, rank, layer), options.dispatch);
  double rows = 0;
  for (int m = 0; m < placement.members; ++m)
    if (m != placement.ranks[rank].member) rows += traffic.rows[m];
  cost.dispatch_bytes += sequences * rows * static_cast<double>(dispatched_row_bytes(config, layer, options));
  cost.return_bytes += sequences * (placement.members - 1) * traffic.sums[placement.ranks[rank].member] *
                       static_cast<double>(wire_bytes(options.wire, config.hidden_size));
}

void add_exchanges(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes, int rank,
                   const ExchangeOptions& options, int sequences, KvType kv_type, WireCost& cost) {
  const Share& own = placement.ranks[rank];
  const SumRanks ranks = ranks_of_sums(placement, nodes, rank);
  const auto add_sum = [&](const std::vector<int>& begin, std::size_t floats, Wire wire) {
    const SumTraffic one = sum_traffic(SumPlan(begin), ranks.nodes, ranks.place, floats, wire);
    ++cost.sum_calls;
    cost.sums = cost.sums + one;
  };
  const std::size_t floats = static_cast<std::size_t>(sequences) * config.hidden_size;
  const Range layers{own.stage_layers.begin, std::min(own.stage_layers.end, config.num_layers())};
  for (const StepStage& stage : step_stages(config, placement, layers)) {
    if (stage.kind == StageKind::kAttention && sums_squares(config, placement))
      add_sum(placement.attention_begin, 2 * static_cast<std::size_t>(sequences), Wire::kF32);
    switch (exchange_of(config, placement, stage)) {
      case StageExchange::kNone:
        break;
      case StageExchange::kAttentionSum:
        add_sum(placement.attention_begin, floats, options.wire);
        break;
      case StageExchange::kExpertSum:
        add_sum(placement.expert_begin[stage.layer], floats, options.wire);
        break;
      case StageExchange::kKeys:
        ++cost.all_to_all_calls;
        cost.key_bytes += std::uint64_t{1} * sequences * (placement.members - 1) *
                          kv_shape(config, own, kv_type).position_wire_bytes();
        break;
      case StageExchange::kDispatch:
        ++cost.all_to_all_calls;
        add_rows_to_experts(config, placement, rank, stage.layer, options, sequences, cost);
        break;
      case StageExchange::kReturn:  // its bytes are those of the dispatch before
        ++cost.all_to_all_calls;
        break;
    }
  }
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

std::uint64_t gathered_bytes(Wire wire, std::size_t rows, int part, int candidates) {
  if (candidates == 0) return wire_bytes(wire, rows * part);
  return rows * std::min(candidates, part) * sizeof(Candidate);
}

SumRanks ranks_of_sums(const Placement& placement, const std::vector<int>& nodes, int rank) {
  SumRanks sums{.ranks = ranks_of_sums(placement, rank), .nodes = {}, .place = 0};
  for (const int r : sums.ranks) sums.nodes.push_back(nodes[r]);
  sums.place = static_cast<int>(std::ranges::find(sums.ranks, rank) - sums.ranks.begin());
  return sums;
}

KvShape kv_shape(const ModelConfig& config, const Share& share, KvType type) {
  return {share.kv_heads.size(), config.heads().key_width, config.heads().head_value_width(), type};
}

WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                          int rank, const ExchangeOptions& options, int sequences, int candidates, KvType kv_type) {
  const Share& share = placement.ranks[rank];
  WireCost cost;
  if (share.idle()) return cost;
  add_exchanges(config, placement, nodes, rank, options, sequences, kv_type, cost);
  if (placement.stages > 1)
    add_messages(config, placement, nodes, rank, options.wire, sequences, candidates, cost);
  else if (rank != 0)
    cost.gather_bytes = gathered_bytes(options.wire, sequences, share.vocab.size(), candidates);
  return cost;
}

}  // namespace foe
