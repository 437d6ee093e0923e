// Sums over groups and over blocks of heads as trees over their index, in the order that inference has on any number of
// ranks (core/sum_tree.h, core/sum_blocks.h).
#pragma once

#include <bit>
#include <span>
#include <utility>

#include "comm/sum_plan.h"
#include "train/rows.h"

namespace foe::train {

// Returns the sum of terms whose indices count from 0, in this order.
inline double tree_sum(std::span<const double> terms) {
  if (terms.size() < 2) return terms.empty() ? 0 : terms[0];
  const std::size_t left = std::bit_floor(terms.size() - 1);
  return tree_sum(terms.first(left)) + tree_sum(terms.subspan(left));
}

// The terms that one rank has of a sum.
class TermSum {
 public:
  TermSum(SumPlan plan, int rank) : plan_(std::move(plan)), rank_(rank) {}
  // A rank alone, which has all terms.
  explicit TermSum(int terms) : TermSum(SumPlan({0, terms}), 0) {}

  const SumPlan& plan() const { return plan_; }

  int terms() const { return plan_.begin()[rank_ + 1] - plan_.begin()[rank_]; }
  // How many sums these terms make up, each that of a subtree: one if they are all terms.
  int partials() const { return plan_.partials(rank_); }
  // The term in whose place add() leaves the i-th of them.
  int place(int i) const { return plan_.partial(rank_, i).first; }
  bool complete() const { return plan_.ranks() == 1; }

  // Adds the terms, vectors of n numbers that begin `stride` numbers apart. They are used up.
  template <typename T>
  void add(T* terms, std::size_t stride, std::size_t n) const {
    for (int i = 0; i < partials(); ++i) {
      const SumPlan::Partial own = plan_.partial(rank_, i);
      T* first = terms + own.first * stride;
      for (const Merge& merge : own.merges) add_to(first + merge.into * stride, first + merge.from * stride, n);
    }
  }

 private:
  SumPlan plan_;
  int rank_;
};

}  // namespace foe::train
