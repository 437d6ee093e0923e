// How much sums over ranks and broadcasts send, computed without running any ranks.
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

  SumTraffic operator+(const SumTraffic& o) const {
    return {messages + o.messages, bytes + o.bytes, node_bytes + o.node_bytes};
  }
  friend bool operator==(const SumTraffic&, const SumTraffic&) = default;
};

// Returns what `rank` sends in Communicator::ordered_sum() of vectors of `count` floats, nodes[r] being the node of
// rank r.
SumTraffic sum_traffic(const SumPlan& plan, const std::vector<int>& nodes, int rank, std::size_t count,
                       Wire wire = Wire::kF32);

// Returns what `rank` sends in Communicator::broadcast() of so many words. Over several nodes, MPI's first message has
// the length and the beginning of what follows in a second one; `threads` says that ranks are threads of one process
// that only pretend to be on several nodes.
SumTraffic broadcast_traffic(const std::vector<int>& nodes, int rank, std::size_t words, bool threads = false);

}  // namespace foe
