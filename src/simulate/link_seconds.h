// How long the links of a simulated cluster take for an exchange.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/sum_plan.h"
#include "costs/sum_traffic.h"
#include "simulate/cluster.h"

namespace foe {

// What one rank sends and gets in an exchange, in bytes: within its node, and over the network.
struct Flow {
  double out[2] = {}, in[2] = {};
  double messages = 0;
};

// How an exchange goes on: how many times a rank waits for the latency of either link, and whether what goes over the
// two follows each other.
struct ExchangeForm {
  int phases[2] = {};
  bool in_turn = false;
  bool sums = false;  // LinkSpeed::sum_bytes_per_s counts
};

// Returns the form of a sum of vectors of `count` floats between ranks on these nodes.
ExchangeForm sum_form(SumAlgorithm algorithm, const std::vector<int>& nodes, std::size_t count);
// Returns what a rank's link carries in it.
Flow sum_flow(SumAlgorithm algorithm, const SumTraffic& sent, const std::vector<int>& nodes, std::size_t count,
              Wire wire);
// Returns the form of an all-to-all.
ExchangeForm all_to_all_form(const std::vector<int>& nodes);

// Returns for each of some groups of ranks, which exchange at the same time, each among its own, the seconds that it
// takes. `flows` and `nodes` are by rank. Links that the ranks of a node share carry what all of them send.
std::vector<double> exchange_seconds(const Cluster& cluster, const std::vector<int>& nodes,
                                     std::span<const std::vector<int>> groups, std::span<const ExchangeForm> forms,
                                     std::span<const Flow> flows);

// Returns the seconds on the way of a message from one rank to another, without its latency.
double message_seconds(const Cluster& cluster, bool network, double bytes);

}  // namespace foe
