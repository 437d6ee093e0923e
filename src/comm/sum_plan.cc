#include "comm/sum_plan.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"
#include "kernels/rows/rows.h"

namespace foe {

SumPlan::SumPlan(std::vector<int> begin) : SumPlan(begin, begin.empty() ? 0 : begin.back()) {
  FOE_CHECK(begin_.front() == 0, "{} offsets from {}", begin_.size(), begin_.front());
}

SumPlan::SumPlan(std::vector<int> begin, int leaves) : begin_(std::move(begin)), leaves_(leaves) {
  FOE_CHECK(begin_.size() > 1 && begin_.front() >= 0 && std::is_sorted(begin_.begin(), begin_.end()), "{} offsets",
            begin_.size());
  partial_begin_.push_back(0);
  std::vector<int> first, terms(begin_.back());
  std::iota(terms.begin(), terms.end(), 0);
  own_merges_.resize(terms.size());
  for (int rank = 0; rank < ranks(); ++rank) {
    for (const Subtree& tree : maximal_subtrees(begin_[rank], begin_[rank + 1], leaves_)) {
      sum_tree_merges(terms.data() + tree.first, tree.last - tree.first, own_merges_.data() + tree.first);
      subtrees_.push_back(tree);
      first.push_back(tree.first);
    }
    partial_begin_.push_back(static_cast<int>(subtrees_.size()));
  }
  merges_.resize(first.size());
  sum_begin_.push_back(0);
  for (const Subtree& tree : maximal_subtrees(begin_.front(), begin_.back(), leaves_)) {
    const int from = sum_begin_.back();
    const auto to = std::lower_bound(first.begin(), first.end(), tree.last) - first.begin();
    sum_tree_merges(first.data() + from, static_cast<int>(to) - from, merges_.data() + from);
    sum_begin_.push_back(static_cast<int>(to));
  }
}

SumPlan SumPlan::among(int first, int last) const {
  return {std::vector(begin_.begin() + first, begin_.begin() + last + 1), leaves_};
}

SumPlan SumPlan::between(std::span<const int> group_begin) const {
  std::vector<int> begin;
  for (const int rank : group_begin) begin.push_back(begin_[rank]);
  return {std::move(begin), leaves_};
}

int SumPlan::max_partials() const {
  int most = 0;
  for (int rank = 0; rank < ranks(); ++rank) most = std::max(most, partials(rank));
  return most;
}

SumPlan::Partial SumPlan::partial(int rank, int i) const {
  const Subtree& tree = subtrees_[partial_begin_[rank] + i];
  const int terms = tree.last - tree.first;
  return {tree.first - begin_[rank], terms, std::span(own_merges_).subspan(tree.first, terms - 1)};
}

void SumPlan::reduce_own(int rank, float* terms, std::size_t count) const {
  for (int i = 0; i < partials(rank); ++i) {
    const Partial own = partial(rank, i);
    float* base = terms + own.first * count;
    for (const Merge& merge : own.merges) add_to(base + merge.into * count, base + merge.from * count, count);
    if (float* to = terms + i * count; to != base) std::copy(base, base + count, to);
  }
}

void SumPlan::reduce_partials(std::span<const float* const> partials, std::size_t count, float* out,
                              std::size_t stride) const {
  FOE_CHECK(static_cast<int>(partials.size()) == total_partials(), "{} partials of {}", partials.size(),
            total_partials());
  if (partials.empty()) std::fill_n(out, count, 0.0f);
  for (int i = 0; i < sums(); ++i) {
    const int begin = sum_begin_[i];
    reduce_one(partials.subspan(begin, sum_begin_[i + 1] - begin), merges_.data() + begin, count, out + i * stride);
  }
}

void SumPlan::reduce_one(std::span<const float* const> partials, const Merge* merges, std::size_t count,
                         float* out) const {
  if (partials.size() <= kMaxSummedRows)
    return add_rows(partials.data(), merges, static_cast<int>(partials.size()), count, out);
  // The blocks of all partials stay in the first-level cache together, so that each partial is read from memory once.
  constexpr std::size_t kFloats = 4096;
  FOE_CHECK(partials.size() <= kFloats, "{} partials", partials.size());
  alignas(64) float sums[kFloats];
  const std::size_t block = std::bit_floor(kFloats / partials.size());
  for (std::size_t at = 0; at < count; at += block) {
    const std::size_t n = std::min(block, count - at);
    for (std::size_t i = 0; i < partials.size(); ++i) std::copy_n(partials[i] + at, n, sums + i * block);
    for (const Merge& merge : std::span(merges, partials.size() - 1))
      add_to(sums + merge.into * block, sums + merge.from * block, n);
    std::copy_n(sums, n, out + at);
  }
}

}  // namespace foe
