// The order in which sums over experts, groups and ranks are added. It is the same on one rank and on many, so that the
// bits of a sum do not depend on who adds what (docs/architecture.md, "Promises").
//
// Each term has an index. The sum is a binary tree, the trie over the bits of the indices; an absent term counts as +0.
// Whoever owns all terms of a subtree may add them before sending the result. The result of a subtree stands for its
// terms, under the index of the first of them.
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

// Writes the n - 1 merges that add n terms into term 0 to `merges`, in order. `indices` has the distinct indices of the
// terms in ascending order; a merge counts terms from 0 to n - 1. Neighbours whose indices differ only in lower bits
// are added first.
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

// A subtree of a sum: its terms are [first, last).
struct Subtree {
  int first;
  int last;
};

// Returns the maximal subtrees that make up the terms [begin, end) of a sum over the terms [0, leaves). The owner of
// these terms sends one partial sum for each.
std::vector<Subtree> maximal_subtrees(int begin, int end, int leaves);

}  // namespace foe
