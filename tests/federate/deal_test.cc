#include "federate/deal.h"

#include <algorithm>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace foe {
namespace {

// So many tokens, each with K different experts and random weights; some experts are chosen more often than others.
Choices random_choices(int experts, int per_token, int tokens, std::uint64_t seed) {
  Choices choices(experts, per_token);
  for (int t = 0; t < tokens; ++t) {
    std::set<std::int32_t> ids;
    for (std::uint64_t i = 0; static_cast<int>(ids.size()) < per_token; ++i) {
      const double x = random_unit(seed + t, i);
      ids.insert(static_cast<std::int32_t>(x * x * experts));
    }
    std::vector<float> weights;
    for (int k = 0; k < per_token; ++k) weights.push_back(static_cast<float>(random_unit(seed + t, 1000 + k)));
    choices.add(std::vector<std::int32_t>(ids.begin(), ids.end()), weights);
  }
  return choices;
}

// Calls body(group_E) for every balanced deal, those that differ by the groups' numbers too.
template <typename Body>
void for_each_deal(std::vector<int>& group_E, std::size_t next, int groups, const Body& body) {
  if (next == group_E.size()) return body(group_E);
  for (int g = 0; g < groups; ++g) {
    const auto taken = std::count(group_E.begin(), group_E.begin() + static_cast<std::ptrdiff_t>(next), g);
    if (taken == static_cast<std::ptrdiff_t>(group_E.size()) / groups) continue;
    group_E[next] = g;
    for_each_deal(group_E, next + 1, groups, body);
  }
}

void expect_balanced(const std::vector<int>& group_E, int groups) {
  for (int g = 0; g < groups; ++g)
    EXPECT_EQ(std::ranges::count(group_E, g), static_cast<std::ptrdiff_t>(group_E.size()) / groups);
}

TEST(Lost, IsWhatComesBehindTheBestOfEachGroup) {
  Choices choices(6, 4);
  choices.add(std::vector<std::int32_t>{0, 1, 2, 5}, std::vector<float>{0.125f, 0.5f, 0.25f, 0.0625f});
  const std::int64_t unit = 1 << 24;
  EXPECT_EQ(std::vector<std::int32_t>(choices.experts_of(0).begin(), choices.experts_of(0).end()),
            (std::vector<std::int32_t>{1, 2, 0, 5}));
  // Two of each of two groups: the third of group 0 is lost, whichever its number.
  EXPECT_EQ(lost(choices, std::vector{0, 0, 0, 1, 1, 1}, 2), (Lost{1, unit / 8}));
  EXPECT_EQ(lost(choices, std::vector{0, 0, 1, 0, 1, 1}, 2), (Lost{0, 0}));
  EXPECT_EQ(lost(choices, std::vector{1, 1, 1, 0, 0, 1}, 2), (Lost{2, unit / 8 + unit / 16}));
  EXPECT_EQ(total_weight(choices), 15 * unit / 16);
}

TEST(DealExperts, FindsTheBestDealOfFewExperts) {
  const struct { int experts, groups, per_token; } cases[] = {{6, 3, 3}, {8, 2, 4}, {8, 4, 4}, {8, 2, 2}, {9, 3, 6}};
  for (const auto& c : cases)
    for (const std::uint64_t seed : {1, 2}) {
      const Choices choices = random_choices(c.experts, c.per_token, 40, 100 * seed);
      std::int64_t least = std::numeric_limits<std::int64_t>::max();
      std::vector<int> group_E(c.experts);
      for_each_deal(group_E, 0, c.groups,
                    [&](const std::vector<int>& all) { least = std::min(least, lost(choices, all, c.groups).weight); });
      const std::vector<int> dealt = deal_experts(choices, c.groups);
      expect_balanced(dealt, c.groups);
      EXPECT_EQ(lost(choices, dealt, c.groups).weight, least) << c.experts << " " << c.groups;
    }
}

TEST(DealExperts, LeavesNoTradeThatHelps) {
  const Choices choices = random_choices(24, 8, 60, 5);
  const std::vector<int> dealt = deal_experts(choices, 4);
  expect_balanced(dealt, 4);
  EXPECT_EQ(dealt, deal_experts(choices, 4));
  const std::int64_t cost = lost(choices, dealt, 4).weight;
  for (int a = 0; a < 24; ++a)
    for (int b = 0; b < a; ++b) {
      std::vector<int> traded = dealt;
      std::swap(traded[a], traded[b]);
      EXPECT_GE(lost(choices, traded, 4).weight, cost);
    }
}

// Every token has an expert of each of the groups that there are, in an order that hides them.
TEST(DealExperts, FindsGroupsThatLoseNothing) {
  constexpr int kExperts = 64, kGroups = 8;
  Choices choices(kExperts, kGroups);
  const auto expert = [](int group, std::uint64_t i) {
    return static_cast<std::int32_t>((group + 8 * (i % 8)) * 29 % 64);
  };
  for (int t = 0; t < 600; ++t) {
    std::vector<std::int32_t> ids;
    for (int g = 0; g < kGroups; ++g) ids.push_back(expert(g, random_bits(t, g)));
    std::ranges::sort(ids);
    choices.add(ids, std::vector<float>(kGroups, 0.125f));
  }
  const std::vector<int> dealt = deal_experts(choices, kGroups);
  EXPECT_EQ(lost(choices, dealt, kGroups), Lost{});
  EXPECT_EQ(dealt[0], 0);  // groups are numbered by their first experts
}

}  // namespace
}  // namespace foe
