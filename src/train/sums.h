// Sums over groups and over blocks of heads as trees over their index, in the order that inference has on any number of
// ranks (core/sum_tree.h, core/sum_blocks.h).
#pragma once

#include <numeric>
#include <vector>

#include "train/rows.h"

namespace foe::train {

class TermSum {
 public:
  explicit TermSum(int terms) : merges_(terms - 1) {
    std::vector<int> indices(terms);
    std::iota(indices.begin(), indices.end(), 0);
    sum_tree_merges(indices.data(), terms, merges_.data());
  }

  int terms() const { return static_cast<int>(merges_.size()) + 1; }

  // Adds all terms, vectors of n numbers that begin `stride` numbers apart, into the first. The others are used up.
  template <typename T>
  void add(T* terms, std::size_t stride, std::size_t n) const {
    for (const Merge& merge : merges_) add_to(terms + merge.into * stride, terms + merge.from * stride, n);
  }

 private:
  std::vector<Merge> merges_;
};

}  // namespace foe::train
