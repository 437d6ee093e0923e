// What a decode step sends, from the placement and formulas alone.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_config.h"
#include "costs/sum_traffic.h"
#include "placement/expert_nodes.h"

namespace foe {

// What one rank sends to others, encoded as the wire has it, in a step that decodes some sequences; where ranks share
// groups, as in plan ep, so many for each owner. Counted as in CommCounter.
struct WireCost {
  int sum_calls = 0;
  SumTraffic sums;
  std::uint64_t gather_bytes = 0;  // of the logits of its part of the vocabulary what is wanted, to rank 0
  // Where ranks share a group, in expectation over selections of experts that are all equally likely:
  int all_to_all_calls = 0;
  double dispatch_bytes = 0;  // for its own tokens, to the other members' experts
  double return_bytes = 0;    // for the other members' tokens
};

// `nodes`: the node of each rank (Communicator::nodes). `candidates`: what each row wants (Batch::candidates); greedy
// decoding wants one, and what looks at all logits 0.
WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                          int rank, const ExchangeOptions& options = {}, int sequences = 1, int candidates = 1);

}  // namespace foe
