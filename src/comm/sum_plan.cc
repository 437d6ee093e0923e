#include "comm/sum_plan.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/rows.h"

namespace foe {

SumPlan::SumPlan(std::vector<int> begin) : begin_(std::move(begin)) {
  FOE_CHECK(begin_.size() > 1 && begin_.front() == 0 && std::is_sorted(begin_.begin(), begin_.end()), "{} offsets",
            begin_.size());
  partial_begin_.push_back(0);
  std::vector<int> first;
  for (int rank = 0; rank < ranks(); ++rank) {
    for (const Subtree& tree : maximal_subtrees(begin_[rank], begin_[rank + 1], begin_.back())) {
      subtrees_.push_back(tree);
      first.push_back(tree.first);
    }
    partial_begin_.push_back(static_cast<int>(subtrees_.size()));
  }
  merges_.resize(first.empty() ? 0 : first.size() - 1);
  sum_tree_merges(first.data(), static_cast<int>(first.size()), merges_.data());
}

int SumPlan::max_partials() const {
  int most = 0;
  for (int rank = 0; rank < ranks(); ++rank) most = std::max(most, partials(rank));
  return most;
}

void SumPlan::reduce_own(int rank, float* terms, std::size_t count) const {
  for (int i = 0; i < partials(rank); ++i) {
    const Subtree& tree = subtrees_[partial_begin_[rank] + i];
    std::vector<int> index;
    for (int term = tree.first; term < tree.last; ++term) index.push_back(term);
    std::vector<Merge> merges(index.size() - 1);
    sum_tree_merges(index.data(), static_cast<int>(index.size()), merges.data());
    float* base = terms + (tree.first - begin_[rank]) * count;
    for (const Merge& merge : merges) add_to(base + merge.into * count, base + merge.from * count, count);
    if (float* to = terms + i * count; to != base) std::copy(base, base + count, to);
  }
}

void SumPlan::reduce_partials(std::span<const float* const> partials, std::size_t count, float* out) const {
  FOE_CHECK(static_cast<int>(partials.size()) == total_partials(), "{} partials of {}", partials.size(),
            total_partials());
  // Blocks that stay in the first-level cache, so that each partial is read from memory once.
  constexpr std::size_t kBlock = 256;
  std::vector<float> sums(partials.size() * kBlock);
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t n = std::min(kBlock, count - at);
    for (std::size_t i = 0; i < partials.size(); ++i) std::copy_n(partials[i] + at, n, sums.data() + i * kBlock);
    for (const Merge& merge : merges_) add_to(sums.data() + merge.into * kBlock, sums.data() + merge.from * kBlock, n);
    if (partials.empty())
      std::fill_n(out + at, n, 0.0f);
    else
      std::copy_n(sums.data(), n, out + at);
  }
}

}  // namespace foe
