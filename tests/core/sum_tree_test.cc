#include "core/sum_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace foe {
namespace {

// Numbers of very different sizes and of both signs: almost every other order of adding them gives other bits.
std::vector<float> random_terms(int count, std::uint64_t seed) {
  std::vector<float> terms(count);
  for (int i = 0; i < count; ++i)
    terms[i] = static_cast<float>(std::ldexp(random_normal(seed, i), static_cast<int>(random_bits(seed, i) % 24)));
  return terms;
}

// The definition, literally: the whole binary tree over [begin, begin + size), a power of two, with +0 for terms that
// are absent.
float tree_sum(const std::vector<int>& indices, const std::vector<float>& terms, int begin, int size) {
  if (size > 1) return tree_sum(indices, terms, begin, size / 2) + tree_sum(indices, terms, begin + size / 2, size / 2);
  for (std::size_t i = 0; i < indices.size(); ++i)
    if (indices[i] == begin) return terms[i];
  return 0.0f;
}

// The terms with these indices, added as sum_tree_merges says.
float merged_sum(const std::vector<int>& indices, std::vector<float> terms) {
  std::vector<Merge> merges(indices.size() - 1);
  sum_tree_merges(indices.data(), static_cast<int>(indices.size()), merges.data());
  for (const Merge& merge : merges) terms[merge.into] += terms[merge.from];
  return terms[0];
}

void expect_same_bits(float a, float b) {
  ASSERT_EQ(std::bit_cast<std::uint32_t>(a), std::bit_cast<std::uint32_t>(b)) << a << ", " << b;
}

TEST(SumTreeMerges, AddEverySubsetOfTenLeavesAsTheWholeTreeDoes) {
  const auto all = random_terms(10, 1);
  for (unsigned subset = 1; subset < 1024; ++subset) {
    std::vector<int> indices;
    std::vector<float> terms;
    for (int i = 0; i < 10; ++i)
      if (subset >> i & 1) indices.push_back(i), terms.push_back(all[i]);
    expect_same_bits(merged_sum(indices, terms), tree_sum(indices, terms, 0, 16));
  }
}

TEST(SumTreeMerges, AddRandomSubsetsOfManyLeaves) {
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<int> indices;
    for (int i = 0; i < 256; ++i)
      if (random_bits(trial, i) % 256 < static_cast<std::uint64_t>(trial % 255 + 1)) indices.push_back(i);
    if (indices.empty()) continue;
    const auto terms = random_terms(static_cast<int>(indices.size()), trial);
    expect_same_bits(merged_sum(indices, terms), tree_sum(indices, terms, 0, 256));
  }
}

TEST(SumTreeMerges, TakeAnyIndexType) {
  const std::int64_t wide[] = {0, 1, std::int64_t{1} << 40, (std::int64_t{1} << 40) + 3};
  Merge merges[3];
  sum_tree_merges(wide, 4, merges);
  const int expected[3][2] = {{0, 1}, {2, 3}, {0, 2}};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(merges[i].into, expected[i][0]) << i;
    EXPECT_EQ(merges[i].from, expected[i][1]) << i;
  }
  sum_tree_merges(wide, 1, static_cast<Merge*>(nullptr));  // one term: nothing to add
  sum_tree_merges(wide, 0, static_cast<Merge*>(nullptr));
}

// Calls body(begin) for all 0 = begin[0] <= ... <= begin[ranks] = leaves.
template <typename Body>
void for_each_split(int leaves, int ranks, Body&& body) {
  std::vector<int> begin(ranks + 1, 0);
  begin[ranks] = leaves;
  while (true) {
    body(begin);
    int i = ranks - 1;  // the next in lexicographic order
    while (i > 0 && begin[i] == leaves) --i;
    if (i == 0) return;
    std::fill(begin.begin() + i, begin.begin() + ranks, begin[i] + 1);
  }
}

// A contiguous part of the leaves is a subtree if it is all there is below one node of the tree.
bool is_subtree(int first, int last, int leaves) {
  for (int size = 1; size <= 64; size *= 2)
    if (first % size == 0 && last == std::min(first + size, leaves)) return true;
  return false;
}

// The promise "Bits" (docs/architecture.md): whoever owns whole subtrees may add them before sending, so ranks do not
// show in a sum.
TEST(MaximalSubtrees, GiveTheSameSumForEverySplitOverRanks) {
  for (int leaves = 1; leaves <= 20; ++leaves) {
    std::vector<int> all(leaves);
    std::iota(all.begin(), all.end(), 0);
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const auto terms = random_terms(leaves, seed);
      const float expected = tree_sum(all, terms, 0, 32);
      for (int ranks = 1; ranks <= 5; ++ranks)
        for_each_split(leaves, ranks, [&](const std::vector<int>& begin) {
          std::vector<int> firsts;
          std::vector<float> partials;
          for (int rank = 0; rank < ranks; ++rank)
            for (const auto& [first, last] : maximal_subtrees(begin[rank], begin[rank + 1], leaves)) {
              firsts.push_back(first);
              partials.push_back(
                  merged_sum({all.begin() + first, all.begin() + last}, {terms.begin() + first, terms.begin() + last}));
            }
          expect_same_bits(merged_sum(firsts, partials), expected);
        });
    }
  }
}

TEST(MaximalSubtrees, CoverTheTermsWithAsFewSubtreesAsPossible) {
  for (int leaves = 1; leaves <= 33; ++leaves)
    for (int begin = 0; begin <= leaves; ++begin)
      for (int end = begin; end <= leaves; ++end) {
        SCOPED_TRACE(testing::Message() << "[" << begin << ", " << end << ") of " << leaves);
        const auto trees = maximal_subtrees(begin, end, leaves);
        int at = begin;
        for (std::size_t i = 0; i < trees.size(); ++i) {
          EXPECT_EQ(trees[i].first, at);
          EXPECT_LT(trees[i].first, trees[i].last);
          EXPECT_TRUE(is_subtree(trees[i].first, trees[i].last, leaves));
          for (std::size_t j = i + 1; j < trees.size(); ++j)
            EXPECT_FALSE(is_subtree(trees[i].first, trees[j].last, leaves)) << "could be one";
          at = trees[i].last;
        }
        EXPECT_EQ(at, end);
      }
}

}  // namespace
}  // namespace foe
