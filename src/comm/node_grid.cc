#include "comm/node_grid.h"

#include <algorithm>

namespace foe {

std::optional<NodeGrid> node_grid(const std::vector<int>& nodes, int rank) {
  const int ranks = static_cast<int>(nodes.size());
  if (!std::is_sorted(nodes.begin(), nodes.end()) || nodes.back() == 0 || nodes.back() == ranks - 1) return {};
  NodeGrid grid;
  for (int r = 0; r < ranks; ++r)
    if (r == 0 || nodes[r] != nodes[r - 1]) grid.begin.push_back(r);
  grid.begin.push_back(ranks);
  grid.node = nodes[rank];
  grid.place = rank - grid.begin[grid.node];
  grid.fewest = ranks;
  for (std::size_t node = 0; node + 1 < grid.begin.size(); ++node)
    grid.fewest = std::min(grid.fewest, grid.begin[node + 1] - grid.begin[node]);
  return grid;
}

}  // namespace foe
