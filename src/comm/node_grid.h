// Where ranks are among the nodes, for collectives with two levels (nodes_comm.h).
#pragma once

#include <optional>
#include <vector>

namespace foe {

// A rank's place among nodes.
struct NodeGrid {
  int node = 0;            // the rank's node
  int place = 0;           // the rank's number among the ranks of its node
  int fewest = 0;          // how many ranks the smallest node has: so many places exist in all nodes
  std::vector<int> begin;  // the first rank of each node, and at the end the number of ranks
};

// Returns the place of `rank`, or nothing if two levels have no use (there is one node, or each has one rank) or the
// ranks of a node are not consecutive.
std::optional<NodeGrid> node_grid(const std::vector<int>& nodes, int rank);

}  // namespace foe
