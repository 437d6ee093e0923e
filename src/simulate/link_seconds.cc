#include "simulate/link_seconds.h"

#include <algorithm>

#include "comm/node_grid.h"

namespace foe {
namespace {

const LinkSpeed& link(const Cluster& cluster, int level) {
  return level == 0 ? cluster.node : cluster.network;
}

bool one_node(const std::vector<int>& nodes) {
  return std::ranges::all_of(nodes, [&](int node) { return node == nodes.front(); });
}

// How many nodes ranks are on, and how many are on the first of them.
struct Levels {
  int nodes = 0, on_first = 0;
};
Levels levels_of(std::vector<int> nodes) {
  const int on_first = static_cast<int>(std::ranges::count(nodes, nodes.front()));
  std::ranges::sort(nodes);
  return {static_cast<int>(std::unique(nodes.begin(), nodes.end()) - nodes.begin()), on_first};
}

}  // namespace

ExchangeForm sum_form(SumAlgorithm algorithm, const std::vector<int>& nodes, std::size_t count) {
  const int ranks = static_cast<int>(nodes.size());
  if (count == 0 || ranks == 1) return {};
  if (algorithm == SumAlgorithm::kRing) {
    const Levels levels = levels_of(nodes);
    return {{2 * (levels.on_first - 1), 2 * (levels.nodes - 1)}, true, true};
  }
  if (const auto grid = node_grid(nodes, 0)) {
    const std::size_t slice = Slices{count, slices_between_nodes(grid->fewest, count)}.longest();
    return {{2, sums_in_slices(static_cast<int>(grid->begin.size()) - 1, slice) ? 2 : 1}, true, true};
  }
  const int phases = sums_in_slices(ranks, count) ? 2 : 1;
  return one_node(nodes) ? ExchangeForm{{phases, 0}, false, true} : ExchangeForm{{0, phases}, false, true};
}

Flow sum_flow(SumAlgorithm algorithm, const SumTraffic& sent, const std::vector<int>& nodes, std::size_t count,
              Wire wire) {
  const auto network = static_cast<double>(sent.node_bytes), inside = static_cast<double>(sent.bytes) - network;
  if (algorithm == SumAlgorithm::kDirect)
    return {{inside, network}, {inside, network}, static_cast<double>(sent.messages)};
  const Levels levels = levels_of(nodes);
  const double bytes = static_cast<double>(wire_bytes(wire, count)), n = levels.on_first, N = levels.nodes;
  const double around = 2 * (n - 1) / n * bytes, between = 2 * (N - 1) / N * bytes / n;
  return {{around, between}, {around, between}, 2 * (n - 1) + 2 * (N - 1)};
}

ExchangeForm all_to_all_form(const std::vector<int>& nodes) {
  return one_node(nodes) ? ExchangeForm{{1, 0}} : ExchangeForm{{0, 1}};
}

std::vector<double> exchange_seconds(const Cluster& cluster, const std::vector<int>& nodes,
                                     std::span<const std::vector<int>> groups, std::span<const ExchangeForm> forms,
                                     std::span<const Flow> flows) {
  // Of the ranks of a node together.
  std::vector<Flow> together(1 + *std::ranges::max_element(nodes));
  for (const std::vector<int>& group : groups)
    for (const int rank : group)
      for (const int level : {0, 1}) {
        together[nodes[rank]].out[level] += flows[rank].out[level];
        together[nodes[rank]].in[level] += flows[rank].in[level];
      }
  std::vector<double> seconds;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    double most[2] = {}, messages = 0;
    for (const int rank : groups[g]) {
      for (const int level : {0, 1}) {
        const LinkSpeed& way = link(cluster, level);
        const Flow& load = way.shared ? together[nodes[rank]] : flows[rank];
        const double bytes_per_s = forms[g].sums ? way.sum_bytes_per_s : way.bytes_per_s;
        most[level] = std::max(most[level], std::max(load.out[level], load.in[level]) / bytes_per_s);
      }
      messages = std::max(messages, flows[rank].messages);
    }
    const ExchangeForm& form = forms[g];
    const LinkSpeed& slowest = link(cluster, form.phases[1] > 0 ? 1 : 0);
    seconds.push_back((form.in_turn ? most[0] + most[1] : std::max(most[0], most[1])) +
                      form.phases[0] * cluster.node.latency_s + form.phases[1] * cluster.network.latency_s +
                      messages * slowest.message_s);
  }
  return seconds;
}

double message_seconds(const Cluster& cluster, bool network, double bytes) {
  const LinkSpeed& way = link(cluster, network ? 1 : 0);
  return way.message_s + bytes / way.bytes_per_s;
}

}  // namespace foe
