#include "costs/sum_traffic.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "comm/communicator.h"
#include "comm/node_grid.h"

namespace foe {
namespace {

// A sum in which all ranks exchange in one level.
SumTraffic one_level(const SumPlan& plan, const std::vector<int>& nodes, int rank, std::size_t count, Wire wire) {
  const std::uint64_t partials = plan.partials(rank);
  const Slices slices{count, plan.ranks()};
  SumTraffic traffic;
  const auto send = [&](int peer, std::uint64_t bytes) {
    traffic = traffic + SumTraffic{1, bytes, nodes[peer] != nodes[rank] ? bytes : 0};
  };
  for (int peer = 0; peer < plan.ranks(); ++peer) {
    if (peer == rank) continue;
    if (!sums_in_slices(plan.ranks(), count)) {
      send(peer, partials * wire_bytes(wire, count));
    } else {
      send(peer, partials * wire_bytes(wire, slices.size(peer)));
      send(peer, wire_bytes(wire, slices.size(rank)));
    }
  }
  return traffic;
}

// Inside a node: a rank sends slices of its partials to the ranks that add them, and the slice that it has added to all
// ranks of the node.
SumTraffic inside_node(const SumPlan& plan, int place, const Slices& slices) {
  SumTraffic traffic;
  for (int peer = 0; peer < plan.ranks(); ++peer) {
    if (peer == place) continue;
    if (peer < slices.parts)
      traffic = traffic + SumTraffic{1, plan.partials(place) * wire_bytes(Wire::kF32, slices.size(peer)), 0};
    if (place < slices.parts) traffic = traffic + SumTraffic{1, wire_bytes(Wire::kF32, slices.size(place)), 0};
  }
  return traffic;
}

}  // namespace

SumTraffic sum_traffic(const SumPlan& plan, const std::vector<int>& nodes, int rank, std::size_t count, Wire wire) {
  FOE_CHECK(plan.ranks() == static_cast<int>(nodes.size()), "a plan for {} ranks on {}", plan.ranks(), nodes.size());
  if (count == 0 || plan.ranks() == 1) return {};
  const auto grid = node_grid(nodes, rank);
  if (!grid) return one_level(plan, nodes, rank, count, wire);
  const Slices slices{count, slices_between_nodes(grid->fewest, count)};
  SumTraffic traffic =
      inside_node(plan.among(grid->begin[grid->node], grid->begin[grid->node + 1]), grid->place, slices);
  if (grid->place >= slices.parts || slices.size(grid->place) == 0) return traffic;
  std::vector<int> each(grid->begin.size() - 1);
  std::iota(each.begin(), each.end(), 0);
  return traffic + one_level(plan.between(grid->begin), each, grid->node, slices.size(grid->place), wire);
}

namespace {

// What the first of `ranks` ranks sends in a broadcast to the others, to which messages go over a network or not.
SumTraffic broadcast_to_all(std::size_t ranks, std::size_t words, bool network, bool in_two) {
  const std::uint64_t peers = ranks - 1, whole = words * sizeof(std::int32_t);
  SumTraffic traffic{peers, peers * whole, 0};
  if (in_two) {
    const std::size_t rest = words - std::min(words, kBroadcastHead - 1);
    traffic = {peers * (rest > 0 ? 2 : 1), peers * (kBroadcastHead + rest) * sizeof(std::int32_t), 0};
  }
  if (network) traffic.node_bytes = traffic.bytes;
  return traffic;
}

}  // namespace

SumTraffic broadcast_traffic(const std::vector<int>& nodes, int rank, std::size_t words, bool threads) {
  const auto others = static_cast<std::size_t>(std::ranges::count_if(nodes, [&](int n) { return n != nodes[0]; }));
  if (const auto grid = node_grid(nodes, rank)) {
    if (grid->place != 0) return {};
    const int node_ranks = grid->begin[grid->node + 1] - grid->begin[grid->node];
    const SumTraffic inside = broadcast_to_all(node_ranks, words, false, false);
    if (rank != 0) return inside;
    return inside + broadcast_to_all(grid->begin.size() - 1, words, true, !threads);
  }
  if (rank != 0 || nodes.size() == 1) return {};
  SumTraffic traffic = broadcast_to_all(nodes.size(), words, false, others > 0 && !threads);
  traffic.node_bytes = traffic.bytes / (nodes.size() - 1) * others;
  return traffic;
}

}  // namespace foe
