// Who owns which terms of a sum over ranks, and in which order everything is added (core/sum_tree.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/sum_tree.h"
#include "kernels/formats/wire_format.h"

namespace foe {

// How `ranks` sum vectors of `count` floats. Whole: everyone receives all partials and adds them, in one exchange. In
// slices: everyone adds one slice, in a second exchange all receive the others'; that takes turns longer, but fewer
// bytes where there are more than two ranks.
inline bool sums_in_slices(int ranks, std::size_t count) {
  return ranks > 2 && count >= 8192;
}

// In how many slices a sum goes between nodes, of which the smallest has so many ranks: short vectors in one, which is
// the fewest messages, longer ones in one for each rank, so that all cores move them.
inline int slices_between_nodes(int ranks, std::size_t count) {
  return count >= 8192 ? ranks : 1;
}

// A vector of `count` floats in `parts` slices of about one size, cut where every wire may be cut. Some may be empty.
struct Slices {
  std::size_t count;
  int parts;

  std::size_t begin(int slice) const {
    const std::size_t blocks = (count + kWireBlock - 1) / kWireBlock;
    return std::min(count, blocks * static_cast<std::size_t>(slice) / static_cast<std::size_t>(parts) * kWireBlock);
  }
  std::size_t size(int slice) const { return begin(slice + 1) - begin(slice); }
  std::size_t longest() const {
    std::size_t most = 0;
    for (int slice = 0; slice < parts; ++slice) most = std::max(most, size(slice));
    return most;
  }
};

class SumPlan {
 public:
  // Rank r owns the terms [begin[r], begin[r + 1]) of the sum; begin ascends from 0 to the number of terms.
  explicit SumPlan(std::vector<int> begin);

  // The part of this sum that the ranks [first, last) can do by themselves, whose terms are not all there are: it has
  // one sum for each maximal subtree of their terms.
  SumPlan among(int first, int last) const;
  // The rest of it: of groups of ranks, the g-th being [group_begin[g], group_begin[g + 1]), each of which has done its
  // part.
  SumPlan between(std::span<const int> group_begin) const;

  const std::vector<int>& begin() const { return begin_; }

  int ranks() const { return static_cast<int>(begin_.size()) - 1; }
  // How many partial sums `rank` sends: one for each maximal subtree among its terms.
  int partials(int rank) const { return partial_begin_[rank + 1] - partial_begin_[rank]; }
  // Where they stand among all partials.
  int first_partial(int rank) const { return partial_begin_[rank]; }
  int total_partials() const { return partial_begin_.back(); }
  int max_partials() const;
  // How many sums come out: 1 (0 without terms), or what a part says.
  int sums() const { return static_cast<int>(sum_begin_.size()) - 1; }

  // Which of a rank's own terms, the first being 0, its i-th partial sum adds, and in which order.
  struct Partial {
    int first;
    int terms;
    std::span<const Merge> merges;
  };
  Partial partial(int rank, int i) const;

  // Adds a rank's own terms, vectors of `count` floats, down to its partials, which move to the front.
  void reduce_own(int rank, float* terms, std::size_t count) const;

  // out = the sum of all partials; partials[i] are `count` floats. out may be one of them. The second of several sums
  // begins at out + stride, and so on.
  void reduce_partials(std::span<const float* const> partials, std::size_t count, float* out,
                       std::size_t stride = 0) const;

 private:
  SumPlan(std::vector<int> begin, int leaves);
  void reduce_one(std::span<const float* const> partials, const Merge* merges, std::size_t count, float* out) const;

  std::vector<int> begin_;
  int leaves_;  // of the whole tree
  std::vector<int> partial_begin_;
  std::vector<Subtree> subtrees_;  // of all ranks, in order
  std::vector<Merge> own_merges_;  // within each subtree, from the index of its first term on
  std::vector<int> sum_begin_;     // among the partials: of each sum
  std::vector<Merge> merges_;      // within each sum, from the index of its first partial on
};

}  // namespace foe
