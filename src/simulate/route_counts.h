// How many rows the experts of a step's layer run, and what travels to them and back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "placement/expert_nodes.h"
#include "placement/placement.h"
#include "simulate/route_source.h"

namespace foe {

// What a rank sends to others and gets from them, in rows or sums: to ranks of its node, and of other ones.
struct Units {
  std::int64_t out[2] = {}, in[2] = {};
};

// Of one layer of a step, by expert or rank.
struct LayerCounts {
  std::vector<std::int32_t> expert_rows;  // of the tokens of all members
  std::vector<Units> rows, sums;          // that travel to experts and back; empty where none do
};

class RouteCounter {
 public:
  // Throws Error if the counts of the source's rows would take more than a gigabyte.
  RouteCounter(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes, Dispatch dispatch,
               const RouteSource& routes);

  // Sets all counts to zero.
  void clear(int layer, LayerCounts& counts) const;
  // Adds the tokens at these positions of a sequence, which a member runs.
  void add(int layer, std::int64_t sequence, int first, int count, int member, LayerCounts& counts) const;

 private:
  // What a row has for a rank.
  struct Hit {
    std::int32_t rank, rows, sums;
  };
  // For the rows of a route table under one placement of experts: each row's hits, and the sums over all rows before.
  struct Counts {
    int experts = 0;
    std::vector<int> ranks;  // that rows travel to
    std::vector<std::int32_t> hits_begin = {0};
    std::vector<Hit> hits;
    std::vector<std::int32_t> before;  // [rows + 1][experts, then rows and sums of each of `ranks`]

    std::size_t width() const { return experts + 2 * ranks.size(); }
  };

  Counts count_rows(const ModelConfig& config, const Placement& placement, Dispatch dispatch, int layer) const;
  void travel(int rank, int member, std::int64_t rows, std::int64_t sums, LayerCounts& counts) const;

  const RouteSource& routes_;
  std::vector<int> nodes_;
  std::vector<std::vector<int>> members_of_;  // by rank: the ranks of its group, by member
  std::vector<Counts> counts_;
  std::vector<int> counts_of_layer_;  // -1: a dense layer
};

}  // namespace foe
