#include "comm/sum_plan.h"

#include <vector>

#include <gtest/gtest.h>

#include "collectives.h"

namespace foe {
namespace {

TEST(SumPlan, CountsPartials) {
  // Six terms, cut as {0, 1, 2}, {}, {3, 4, 5}: the subtrees are [0, 2), [2, 3) and [3, 4), [4, 6).
  const SumPlan plan({0, 3, 3, 6});
  EXPECT_EQ(plan.ranks(), 3);
  EXPECT_EQ(plan.partials(0), 2);
  EXPECT_EQ(plan.partials(1), 0);
  EXPECT_EQ(plan.partials(2), 2);
  EXPECT_EQ(plan.first_partial(0), 0);
  EXPECT_EQ(plan.first_partial(1), 2);
  EXPECT_EQ(plan.first_partial(2), 2);
  EXPECT_EQ(plan.total_partials(), 4);
  EXPECT_EQ(plan.max_partials(), 2);
}

TEST(SumPlan, OneRankSendsOnePartial) {
  for (int leaves = 1; leaves <= 20; ++leaves) EXPECT_EQ(SumPlan({0, leaves}).total_partials(), 1) << leaves;
}

TEST(SumPlan, ASplitAtSubtreeBoundariesSendsOnePartialEach) {
  EXPECT_EQ(SumPlan({0, 4, 8}).total_partials(), 2);
  EXPECT_EQ(SumPlan({0, 2, 4, 6, 8}).total_partials(), 4);
  EXPECT_EQ(SumPlan({0, 4, 6, 8}).total_partials(), 3);
}

// The two halves of an ordered sum without any communication: what every backend builds on.
TEST(SumPlan, GivesTheDefinitionsBitsForEverySplit) {
  constexpr std::size_t kCount = 600;  // more than one block of reduce_partials, and a rest
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int leaves = 1; leaves <= 13; ++leaves)
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        const Split begin = seed == 0 ? even_split(leaves, ranks) : random_split(leaves, ranks, seed * 100 + leaves);
        const SumPlan plan(begin);
        std::vector<std::vector<float>> terms;
        std::vector<const float*> partials;
        for (int rank = 0; rank < ranks; ++rank) {
          terms.emplace_back();
          for (int term = begin[rank]; term < begin[rank + 1]; ++term)
            for (std::size_t i = 0; i < kCount; ++i) terms.back().push_back(term_element(seed, term, i));
          plan.reduce_own(rank, terms.back().data(), kCount);
        }
        for (int rank = 0; rank < ranks; ++rank)
          for (int i = 0; i < plan.partials(rank); ++i) partials.push_back(terms[rank].data() + i * kCount);
        std::vector<float> sum(kCount);
        plan.reduce_partials(partials, kCount, sum.data());
        const auto expected = tree_sum(seed, leaves, 0, 16, kCount);
        ASSERT_EQ(sum, expected) << leaves << " terms over " << ranks << " ranks, seed " << seed;
        // Into one of the partials, too.
        plan.reduce_partials(partials, kCount, const_cast<float*>(partials.back()));
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), partials.back()));
      }
}

TEST(Slices, AreCutAtBlocksAndCoverAll) {
  for (const std::size_t count : {0, 1, 63, 64, 65, 1000, 8192, 100001})
    for (int parts = 1; parts <= 9; ++parts) {
      const Slices slices{count, parts};
      EXPECT_EQ(slices.begin(0), 0u);
      EXPECT_EQ(slices.begin(parts), count);
      for (int i = 0; i < parts; ++i) {
        EXPECT_TRUE(slices.begin(i) % kWireBlock == 0 || slices.begin(i) == count);
        EXPECT_LE(slices.size(i), slices.longest());
        EXPECT_LE(slices.size(i), count / parts + kWireBlock);
      }
    }
}

// Groups add what they can, and then the groups' sums are added: any groups, however many sums each comes to.
TEST(SumPlan, MayBeDoneInTwoLevels) {
  constexpr std::size_t kCount = 600;
  for (int ranks = 2; ranks <= 8; ++ranks)
    for (int leaves = 1; leaves <= 13; ++leaves)
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        const Split begin = random_split(leaves, ranks, seed * 100 + leaves);
        const SumPlan plan(begin);
        std::vector<int> groups = {0};
        for (int rank = 1; rank < ranks; ++rank)
          if (random_bits(seed, rank) % 2) groups.push_back(rank);
        groups.push_back(ranks);
        const SumPlan between = plan.between(groups);
        std::vector<std::vector<float>> sums;
        std::vector<const float*> partials;
        for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
          const SumPlan among = plan.among(groups[g], groups[g + 1]);
          EXPECT_EQ(among.sums(), between.partials(static_cast<int>(g)));
          std::vector<std::vector<float>> terms;
          std::vector<const float*> inputs;
          for (int rank = groups[g]; rank < groups[g + 1]; ++rank) {
            terms.emplace_back();
            for (int term = begin[rank]; term < begin[rank + 1]; ++term)
              for (std::size_t i = 0; i < kCount; ++i) terms.back().push_back(term_element(seed, term, i));
            plan.reduce_own(rank, terms.back().data(), kCount);
            EXPECT_EQ(among.partials(rank - groups[g]), plan.partials(rank));
            for (int i = 0; i < plan.partials(rank); ++i) inputs.push_back(terms.back().data() + i * kCount);
          }
          sums.emplace_back(std::max(1, among.sums()) * kCount);
          among.reduce_partials(inputs, kCount, sums.back().data(), kCount);
          for (int i = 0; i < among.sums(); ++i) partials.push_back(sums.back().data() + i * kCount);
        }
        std::vector<float> sum(kCount);
        between.reduce_partials(partials, kCount, sum.data());
        ASSERT_EQ(sum, tree_sum(seed, leaves, 0, 16, kCount)) << leaves << " terms over " << ranks << " ranks";
      }
}

TEST(SumPlanDeathTest, OffsetsMustAscendFromZero) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(SumPlan({}), "0 offsets");
  EXPECT_DEATH(SumPlan({0}), "1 offsets");
  EXPECT_DEATH(SumPlan({1, 2}), "2 offsets");
  EXPECT_DEATH(SumPlan({0, 2, 1}), "3 offsets");
}

}  // namespace
}  // namespace foe
