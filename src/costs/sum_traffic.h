// How much a sum over ranks sends, computed without running any ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/sum_plan.h"

namespace foe {

// Counted like the fields of CommCounter.
struct SumTraffic {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t node_bytes = 0;

  friend bool operator==(const SumTraffic&, const SumTraffic&) = default;
};

// Returns what `rank` sends in Communicator::ordered_sum() of vectors of `count` floats, nodes[r] being the node of
// rank r.
SumTraffic sum_traffic(const SumPlan& plan, const std::vector<int>& nodes, int rank, std::size_t count,
                       Wire wire = Wire::kF32);

}  // namespace foe
