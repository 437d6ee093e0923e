// What a sum over ranks sends, without any ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/sum_plan.h"

namespace foe {

// Counted as in CommCounter.
struct SumTraffic {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t node_bytes = 0;

  friend bool operator==(const SumTraffic&, const SumTraffic&) = default;
};

// What `rank` sends in an ordered_sum of vectors of `count` floats, nodes[r] being rank r's node.
SumTraffic sum_traffic(const SumPlan& plan, const std::vector<int>& nodes, int rank, std::size_t count,
                       Wire wire = Wire::kF32);

}  // namespace foe
