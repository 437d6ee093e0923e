// What a decode step sends, from the placement and formulas alone.
#pragma once

#include <cstdint>

#include "core/model_config.h"
#include "placement/expert_nodes.h"

namespace foe {

// Exchanges in which a rank takes part, and payload bytes of f32 that it hands to other ranks, for one token of one
// sequence, which in plan ep, and where ranks share groups, is the rank's own: each rank hands every other one its
// partial sums (vectors of 8192 floats and more go in slices if there are more than two ranks: comm/sum_plan.h).
struct WireCost {
  int sums = 0;
  std::int64_t sum_bytes = 0;
  std::int64_t gather_bytes = 0;  // its share of the logits, to rank 0
  // Where ranks share a group, in expectation over selections of experts that are all equally likely:
  int all_to_alls = 0;
  double dispatch_bytes = 0;  // for a token of its own, to the other members' experts
  double return_bytes = 0;    // for a token of another member
};

// `partials`: how many partial sums the rank sends per sum (SumPlan::partials); one where ranks share groups.
WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, int rank, int partials,
                          const ExchangeOptions& options = {});

}  // namespace foe
