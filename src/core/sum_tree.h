// The one order in which sums over experts, groups and ranks are taken (design: invariant "Bits").
//
// Terms have an index; the sum is the binary trie over the bits of the index, absent terms counting as +0. So it does
// not depend on which terms are present elsewhere or on who adds them: whoever owns a whole subtree may add it before
// sending. A subtree stands in for its terms under the index of its first one.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace foe {

// value[into] += value[from]
struct Merge {
  std::int16_t into;
  std::int16_t from;
};

// The merges that add n terms, given by their ascending distinct indices, into term 0: writes n - 1 of them to
// `merges`. Two neighbours split at the highest bit in which their indices differ; lower splits are added first.
template <typename Index>
void sum_tree_merges(const Index* indices, int n, Merge* merges) {
  std::int16_t open[64];  // terms whose sum with their left neighbour is still to come, and the level of that split
  int split[64];
  int depth = 0;
  for (int i = 0; i < n; ++i) {
    const int level =
        i == 0 ? 64 : static_cast<int>(std::bit_width(static_cast<std::uint64_t>(indices[i - 1] ^ indices[i])));
    for (; depth > 1 && split[depth - 1] < level; --depth) *merges++ = {open[depth - 2], open[depth - 1]};
    open[depth] = static_cast<std::int16_t>(i);
    split[depth++] = level;
  }
  for (; depth > 1; --depth) *merges++ = {open[depth - 2], open[depth - 1]};
}

// A subtree of the sum over [0, leaves): the terms [first, last).
struct Subtree {
  int first;
  int last;
};

// The maximal subtrees that make up the terms [begin, end) of a sum over [0, leaves): what their owner sends, one each.
std::vector<Subtree> maximal_subtrees(int begin, int end, int leaves);

}  // namespace foe
