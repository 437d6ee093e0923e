#include "placement/wire.h"

namespace foe {
namespace {

void add_expert_exchanges(const ModelConfig& config, const Placement& placement, int rank,
                          const ExchangeOptions& options, WireCost& cost) {
  const double L = config.num_hidden_layers;
  const int own = placement.ranks[rank].member;
  const ExpectedTraffic traffic = expected_traffic(config, experts_of_members(placement, rank), options.dispatch);
  double rows = 0;
  for (int m = 0; m < placement.members; ++m)
    if (m != own) rows += traffic.rows[m];
  cost.all_to_alls = 2 * config.num_hidden_layers;
  cost.dispatch_bytes = L * rows * static_cast<double>(dispatched_row_bytes(config, options));
  cost.return_bytes = L * traffic.sums[own] * static_cast<double>(wire_bytes(options.wire, config.hidden_size));
}

void add_sums(const ModelConfig& config, const Placement& placement, int partials, WireCost& cost) {
  const std::int64_t L = config.num_hidden_layers, D = config.hidden_size;
  std::int64_t floats = 0;
  if (config.federated()) {
    cost.sums = static_cast<int>(L) + 1;
    floats = cost.sums * D;
  } else {
    // QK-norm over a width that is split adds a sum of two floats per layer.
    const bool split_norm = config.qk_norm == QkNorm::kFull;
    cost.sums = static_cast<int>(split_norm ? 3 * L : 2 * L);
    floats = 2 * L * D + (split_norm ? 2 * L : 0);
  }
  cost.sum_bytes = floats * partials * static_cast<std::int64_t>(sizeof(float)) * (placement.group_ranks() - 1);
}

}  // namespace

WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, int rank, int partials,
                          const ExchangeOptions& options) {
  const Share& share = placement.ranks[rank];
  WireCost cost;
  if (share.idle()) return cost;
  if (placement.group_ranks() > 1) add_sums(config, placement, partials, cost);
  if (placement.members > 1) add_expert_exchanges(config, placement, rank, options, cost);
  if (rank != 0) cost.gather_bytes = std::int64_t{sizeof(float)} * share.vocab.size();
  return cost;
}

}  // namespace foe
