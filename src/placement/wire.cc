#include "placement/wire.h"

namespace foe {
namespace {

void add_expert_exchanges(const ModelConfig& config, const Placement& placement, int rank, Dispatch dispatch,
                          WireCost& cost) {
  const double L = config.num_hidden_layers;
  const ExpectedTraffic traffic = expected_traffic(config, placement, dispatch);
  double rows = 0;
  for (std::size_t r = 0; r < traffic.rows.size(); ++r)
    if (static_cast<int>(r) != rank) rows += traffic.rows[r];
  cost.all_to_alls = 2 * config.num_hidden_layers;
  cost.dispatch_bytes = L * rows * static_cast<double>(dispatched_row_floats(config, dispatch) * sizeof(float));
  cost.return_bytes = placement.ranks.size() == 1 ? 0 : L * traffic.sums[rank] * config.hidden_size * sizeof(float);
}

}  // namespace

WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, int rank, int partials,
                          Dispatch dispatch) {
  const std::int64_t others = static_cast<std::int64_t>(placement.ranks.size()) - 1;
  const std::int64_t L = config.num_hidden_layers, D = config.hidden_size;
  WireCost cost;
  if (placement.plan == Plan::kFoe) {
    cost.sums = static_cast<int>(L) + 1;
    cost.sum_bytes = cost.sums * partials * D * 4 * others;
  } else if (placement.plan == Plan::kEp) {
    add_expert_exchanges(config, placement, rank, dispatch, cost);
  } else {
    // QK-norm over a width that is split adds a sum of two floats per layer.
    const bool split_norm = config.qk_norm == QkNorm::kFull && others > 0;
    cost.sums = static_cast<int>(split_norm ? 3 * L : 2 * L);
    cost.sum_bytes = (2 * L * D + (split_norm ? 2 * L : 0)) * partials * 4 * others;
  }
  if (rank != 0) cost.gather_bytes = std::int64_t{4} * placement.ranks[rank].vocab.size();
  return cost;
}

}  // namespace foe
