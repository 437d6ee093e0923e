#include "core/sum_tree.h"

#include <algorithm>

namespace foe {

std::vector<Subtree> maximal_subtrees(int begin, int end, int leaves) {
  std::vector<Subtree> nodes;
  while (begin < end) {
    int size = 1;
    // A subtree of twice the size must start at a multiple of that size, and may end after `end` only if there are no
    // leaves.
    while (begin % (2 * size) == 0 && (begin + 2 * size <= end || end == leaves) && begin + size < end) size *= 2;
    nodes.push_back({begin, std::min(begin + size, end)});
    begin += size;
  }
  return nodes;
}

}  // namespace foe
