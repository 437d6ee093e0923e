// Which rank owns which terms of a sum, and in which order everything is added (core/sum_tree.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/sum_tree.h"
#include "kernels/formats/wire_format.h"

namespace foe {

// Whether `ranks` ranks add vectors of `count` floats in slices. If not, everyone receives all partials and adds them,
// in one exchange. In slices, everyone adds one slice of the vectors, and in a second exchange receives the other
// slices: that takes two exchanges, but with more than two ranks it sends fewer bytes.
inline bool sums_in_slices(int ranks, std::size_t count) {
  return ranks > 2 && count >= 8192;
}

// Returns in how many slices a sum goes between nodes, of which the smallest has `ranks` ranks. Short vectors go in one
// slice, for the fewest messages, longer ones in a slice for each rank, so that all cores move data.
inline int slices_between_nodes(int ranks, std::size_t count) {
  return count >= 8192 ? ranks : 1;
}

// Cuts a vector of `count` floats into `parts` slices of about the same size, at multiples of kWireBlock. Some may be
// empty.
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
  // Rank r owns the terms [begin[r], begin[r + 1]) of the sum. `begin` ascends from 0 to the number of terms.
  explicit SumPlan(std::vector<int> begin);

  // Returns the part of this sum that the ranks [first, last) can add by themselves. Its result is not one sum but
  // several, one for each maximal subtree of their terms.
  SumPlan among(int first, int last) const;
  // Returns the rest of the sum, between sets of ranks that have each done their part: the g-th set is the ranks
  // [group_begin[g], group_begin[g + 1]).
  SumPlan between(std::span<const int> group_begin) const;

  const std::vector<int>& begin() const { return begin_; }

  int ranks() const { return static_cast<int>(begin_.size()) - 1; }
  // Returns how many partial sums `rank` sends: one for each maximal subtree of its terms.
  int partials(int rank) const { return partial_begin_[rank + 1] - partial_begin_[rank]; }
  // Returns the index of the rank's first partial sum among those of all ranks.
  int first_partial(int rank) const { return partial_begin_[rank]; }
  int total_partials() const { return partial_begin_.back(); }
  int max_partials() const;
  // Returns how many sums come out: 1, or 0 without terms; the plan from among() may have more.
  int sums() const { return static_cast<int>(sum_begin_.size()) - 1; }

  // Which of its own terms a rank adds to its i-th partial sum, and in which order. The rank's first term is 0.
  struct Partial {
    int first;
    int terms;
    std::span<const Merge> merges;
  };
  Partial partial(int rank, int i) const;

  // Adds a rank's own terms, vectors of `count` floats, to its partial sums, which are moved to the front of `terms`.
  void reduce_own(int rank, float* terms, std::size_t count) const;

  // Writes the sum of all partials, vectors of `count` floats, to `out`, which may be one of them. If there are several
  // sums, sum i is written to out + i * stride.
  void reduce_partials(std::span<const float* const> partials, std::size_t count, float* out,
                       std::size_t stride = 0) const;

 private:
  SumPlan(std::vector<int> begin, int leaves);
  void reduce_one(std::span<const float* const> partials, const Merge* merges, std::size_t count, float* out) const;

  std::vector<int> begin_;
  int leaves_;  // of the whole tree
  std::vector<int> partial_begin_;
  std::vector<Subtree> subtrees_;  // of all ranks, in their order
  std::vector<Merge> own_merges_;  // within the subtrees; those of a subtree begin at the index of its first term
  std::vector<int> sum_begin_;     // the first partial of each sum
  std::vector<Merge> merges_;      // within the sums; those of a sum begin at the index of its first partial
};

}  // namespace foe
