// Where ranks are among the nodes, for collectives in two levels (nodes_comm.h).
#pragma once

#include <optional>
#include <vector>

namespace foe {

// A rank's place among nodes.
struct NodeGrid {
  int node = 0;            // its node
  int place = 0;           // among the ranks of its node
  int fewest = 0;          // ranks that a node has: so many places exist in all nodes
  std::vector<int> begin;  // the first rank of each node, and the number of ranks
};

// Nothing if two levels gain nothing (one node, or one rank on each) or the ranks of a node are not consecutive.
std::optional<NodeGrid> node_grid(const std::vector<int>& nodes, int rank);

}  // namespace foe
