// Who owns which terms of a sum over ranks, and in which order everything is added (core/sum_tree.h).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/sum_tree.h"

namespace foe {

// How `ranks` sum vectors of `count` floats. Whole: everyone receives all partials and adds them, in one exchange. In
// slices: everyone adds one slice, in a second exchange all receive the others'; that takes turns longer, but fewer
// bytes where there are more than two ranks.
inline bool sums_in_slices(int ranks, std::size_t count) {
  return ranks > 2 && count >= 8192;
}

class SumPlan {
 public:
  // Rank r owns the terms [begin[r], begin[r + 1]) of the sum; begin ascends from 0 to the number of terms.
  explicit SumPlan(std::vector<int> begin);

  int ranks() const { return static_cast<int>(begin_.size()) - 1; }
  // How many partial sums `rank` sends: one for each maximal subtree among its terms.
  int partials(int rank) const { return partial_begin_[rank + 1] - partial_begin_[rank]; }
  // Where they stand among all partials.
  int first_partial(int rank) const { return partial_begin_[rank]; }
  int total_partials() const { return partial_begin_.back(); }
  int max_partials() const;

  // Adds a rank's own terms, vectors of `count` floats, down to its partials, which move to the front.
  void reduce_own(int rank, float* terms, std::size_t count) const;

  // out = the sum of all partials; partials[i] are `count` floats. out may be one of them.
  void reduce_partials(std::span<const float* const> partials, std::size_t count, float* out) const;

 private:
  std::vector<int> begin_;
  std::vector<int> partial_begin_;
  std::vector<Subtree> subtrees_;  // of all ranks, in order
  std::vector<Merge> own_merges_;  // within each subtree, from the index of its first term on
  std::vector<Merge> merges_;      // over all partials
};

}  // namespace foe
