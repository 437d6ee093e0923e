#include "kernels/rows/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "kernels/each_target.h"

namespace foe {
namespace {

using testing::ElementsAre;

template <typename T>
struct Selected {
  std::vector<std::int32_t> experts;
  std::vector<T> weights;
};

template <typename T>
Selected<T> select_from(const Selection& how, const Controls<T>& controls, std::vector<T> scores) {
  Selected<T> s{std::vector<std::int32_t>(how.per_token + 1, -7), std::vector<T>(how.per_token + 1, T{-7})};
  const int count = select(how, controls, scores.data(), s.experts.data(), s.weights.data());
  EXPECT_EQ(s.experts.back(), -7) << "wrote past the end";
  EXPECT_EQ(s.weights.back(), T{-7}) << "wrote past the end";
  s.experts.resize(count);
  s.weights.resize(count);
  return s;
}

// The definition, one expert at a time: its rank among those that compete with it says whether it is selected.
Selected<double> by_definition(const Selection& how, const std::vector<double>& z, const std::vector<double>& bias,
                               const std::vector<int>& allowed) {
  const RouterConfig& r = how.router;
  const int E = how.experts, group = E / how.expert_groups, limited = E / r.groups;
  const auto sum_of = [&](auto&& keep, auto&& value) {
    double sum = 0;
    for (int e = 0; e < E; ++e)
      if (keep(e)) sum += value(e);
    return sum;
  };
  const auto all = [](int) { return true; };
  std::vector<double> s(E);
  for (int e = 0; e < E; ++e) {
    s[e] = z[e];
    if (r.score == RouterScore::kSoftmax) s[e] = std::exp(z[e]) / sum_of(all, [&](int i) { return std::exp(z[i]); });
    if (r.score == RouterScore::kSigmoid) s[e] = 1 / (1 + std::exp(-z[e]));
  }
  const auto before = [&](int a, int b) {
    return s[a] + bias[a] > s[b] + bias[b] || (s[a] + bias[a] == s[b] + bias[b] && a < b);
  };
  // Of experts [first, last): how many are better than e.
  const auto better = [&](int e, int first, int last, auto&& counts) {
    int n = 0;
    for (int i = first; i < last; ++i) n += counts(i) && i != e && before(i, e);
    return n;
  };
  std::vector<int> open = allowed;
  if (r.top_groups < r.groups) {
    std::vector<double> worth(r.groups, -std::numeric_limits<double>::infinity());
    for (int g = 0; g < r.groups; ++g) {
      std::vector<double> values;
      for (int e = g * limited; e < (g + 1) * limited; ++e)
        if (allowed[e]) values.push_back(s[e] + bias[e]);
      std::sort(values.rbegin(), values.rend());
      if (!values.empty()) worth[g] = values[0];
      if (values.size() > 1 && r.group_score == GroupScore::kTopTwo) worth[g] += values[1];
    }
    const int per_h = r.groups / how.expert_groups;
    for (int e = 0; e < E; ++e) {
      const int g = e / limited, first = g / per_h * per_h;
      int n = 0;
      for (int o = first; o < first + per_h; ++o) n += worth[o] > worth[g] || (worth[o] == worth[g] && o < g);
      if (n >= r.top_groups / how.expert_groups) open[e] = 0;
    }
  }
  const auto is_open = [&](int e) { return open[e] != 0; };
  Selected<double> selected;
  for (int e = 0; e < E; ++e) {
    const int first = e / group * group;
    if (!open[e] || better(e, first, first + group, is_open) >= how.per_token / how.expert_groups) continue;
    if (r.top_p < 1) {  // those before it do not reach p
      const auto in_group = [&](int i) { return i / group == e / group; };
      const double reach = r.top_p * (how.expert_groups > 1 ? sum_of(in_group, [&](int i) { return s[i]; }) : 1);
      if (sum_of([&](int i) { return in_group(i) && open[i] && before(i, e); }, [&](int i) { return s[i]; }) >= reach)
        continue;
    }
    selected.experts.push_back(e);
  }
  double total = 0, exponentials = 0;
  const auto zero = [&](int e) { return e % group >= group - how.zero_experts; };
  for (const int e : selected.experts) {
    if (r.norm == RouterNorm::kSelected || !zero(e)) total += s[e];
    exponentials += std::exp(z[e]);
  }
  for (const int e : selected.experts) {
    double w = r.score == RouterScore::kOne ? 1 : s[e];
    if (r.score == RouterScore::kSelectedSoftmax) w = std::exp(z[e]) / exponentials;
    if (r.norm == RouterNorm::kComputing && zero(e)) w = 0;
    if (r.norm != RouterNorm::kNone && total != 0) w /= std::max(total, r.norm_min);
    selected.weights.push_back(w * r.scale);
  }
  return selected;
}

// Every combination that validate() lets pass, on scores with and without ties.
TEST(Select, IsItsDefinition) {
  int checked = 0;
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSelectedSoftmax, RouterScore::kOne})
    for (const RouterNorm norm : {RouterNorm::kNone, RouterNorm::kSelected, RouterNorm::kComputing})
      for (const int H : {1, 2})
        for (const auto& [groups, top_groups] : {std::pair{1, 1}, {4, 2}, {6, 4}})
          for (const GroupScore group_score : {GroupScore::kMax, GroupScore::kTopTwo})
            for (const double top_p : {1.0, 0.55})
              for (const int variant : {0, 1, 2, 3}) {
                const Selection how{.router = {.score = score,
                                               .selection_bias = variant % 2 == 1,
                                               .groups = groups,
                                               .top_groups = top_groups,
                                               .group_score = group_score,
                                               .top_p = top_p,
                                               .norm = norm,
                                               .scale = 2.5,
                                               .norm_min = norm != RouterNorm::kNone && variant == 3 ? 0.9 : 0},
                                    .experts = 24,
                                    .per_token = 6,
                                    .expert_groups = H,
                                    .zero_experts = variant >= 2 ? 3 : 0};
                try {
                  validate(how.router, how.experts, how.per_token, H, "router.");
                } catch (const std::exception&) {
                  continue;
                }
                ++checked;
                const auto seed = static_cast<std::uint64_t>(checked);
                std::vector<double> z(24), bias(24);
                std::vector<int> allowed(24, 1);
                for (int e = 0; e < 24; ++e) {
                  // Steps of an eighth are exact in float and make ties; a step of the index tells all others apart.
                  z[e] = static_cast<double>(random_bits(seed, e) % 16) / 8;
                  if (variant % 2 == 1) bias[e] = static_cast<double>(random_bits(seed, 100 + e) % 64) / 64;
                  if (variant >= 2) allowed[e] = random_bits(seed, 200 + e) % 4 != 0;
                }
                const std::vector<std::uint8_t> mask(allowed.begin(), allowed.end());
                Controls<double> controls;
                if (variant % 2 == 1) controls.selection_bias_E = bias.data();
                if (variant >= 2) controls.allowed_E = mask.data();
                const Selected<double> expected = by_definition(how, z, bias, allowed);
                const Selected<double> found = select_from(how, controls, z);
                ASSERT_EQ(found.experts, expected.experts) << checked;
                for (std::size_t j = 0; j < found.weights.size(); ++j)
                  ASSERT_NEAR(found.weights[j], expected.weights[j], 1e-14) << checked;
              }
  EXPECT_GT(checked, 200);
}

// In float the same experts have the same weights but for rounding, and on every instruction set the same bits.
TEST(Select, FloatAgreesWithDouble) {
  const Selection how{.router = {.score = RouterScore::kSigmoid,
                                 .selection_bias = true,
                                 .groups = 8,
                                 .top_groups = 4,
                                 .group_score = GroupScore::kTopTwo,
                                 .norm = RouterNorm::kSelected,
                                 .scale = 2.5},
                      .experts = 256,
                      .per_token = 8};
  for (int seed = 0; seed < 20; ++seed) {
    std::vector<double> z(256), bias(256);
    for (int e = 0; e < 256; ++e) {
      z[e] = static_cast<float>(random_normal(seed, e));
      bias[e] = static_cast<float>(random_normal(seed + 100, e) / 8);
    }
    const std::vector<float> z32(z.begin(), z.end()), bias32(bias.begin(), bias.end());
    const Selected<double> expected = select_from<double>(how, {.selection_bias_E = bias.data()}, z);
    Selected<float> first;
    for_each_target([&] {
      const Selected<float> found = select_from<float>(how, {.selection_bias_E = bias32.data()}, z32);
      EXPECT_EQ(found.experts, expected.experts);
      // Sigmoids within 6 roundings, then a sum of eight, a quotient and a product.
      for (std::size_t j = 0; j < found.weights.size(); ++j)
        EXPECT_NEAR(found.weights[j], expected.weights[j], 22 * 0x1p-24 * expected.weights[j]);
      if (first.experts.empty()) first = found;
      EXPECT_EQ(found.weights, first.weights);
    });
  }
}

TEST(Select, TheBiasChoosesAndDoesNotWeigh) {
  const Selection how{.router = {.score = RouterScore::kSigmoid}, .experts = 4, .per_token = 2};
  const std::vector<double> z{0, 1, 2, 3}, bias{9, 0, 0, 0};
  const Selected<double> found = select_from<double>(how, {.selection_bias_E = bias.data()}, z);
  EXPECT_THAT(found.experts, ElementsAre(0, 3));
  EXPECT_THAT(found.weights, ElementsAre(0.5, 1 / (1 + std::exp(-3.0))));
}

// The group with the single best expert loses to the one with the two best.
TEST(Select, AGroupIsWorthItsBestOrItsTwoBest) {
  Selection how{.router = {.score = RouterScore::kOne, .groups = 2, .top_groups = 1}, .experts = 6, .per_token = 2};
  const std::vector<double> z{5, 0, 1, 4, 3, 0};
  EXPECT_THAT(select_from<double>(how, {}, z).experts, ElementsAre(0, 2));
  how.router.group_score = GroupScore::kTopTwo;
  EXPECT_THAT(select_from<double>(how, {}, z).experts, ElementsAre(3, 4));
  EXPECT_THAT(select_from<double>(how, {}, {1, 2, 1, 1, 2, 1}).experts, ElementsAre(0, 1)) << "a tie of groups";
}

TEST(Select, TopPTakesTheShortestBeginning) {
  // Probabilities 1/2, 1/4, 1/8, 1/8.
  const std::vector<double> z{std::log(1.0), std::log(4.0), std::log(2.0), std::log(1.0)};
  Selection how{.router = {}, .experts = 4, .per_token = 4};
  for (const auto& [p, expected] : {std::pair{0.3, 1}, {0.499, 1}, {0.6, 2}, {0.76, 3}, {0.99, 4}, {1.0, 4}}) {
    how.router.top_p = p;
    EXPECT_EQ(select_from<double>(how, {}, z).experts.size(), expected) << p;
  }
  how.per_token = 2;
  EXPECT_THAT(select_from<double>(how, {}, z).experts, ElementsAre(1, 2)) << "at most K";
}

// Mixtral's rule, the softmax of the selected, is OLMoE's with norm_topk_prob.
TEST(Select, SoftmaxOfTheSelectedIsTheNormedSoftmax) {
  const Selection of_selected{.router = {.score = RouterScore::kSelectedSoftmax}, .experts = 16, .per_token = 4};
  const Selection normed{.router = {.norm = RouterNorm::kSelected}, .experts = 16, .per_token = 4};
  for (int seed = 0; seed < 20; ++seed) {
    std::vector<double> z(16);
    for (int e = 0; e < 16; ++e) z[e] = random_normal(seed, e);
    const Selected<double> a = select_from<double>(of_selected, {}, z), b = select_from<double>(normed, {}, z);
    EXPECT_EQ(a.experts, b.experts);
    for (int j = 0; j < 4; ++j) EXPECT_NEAR(a.weights[j], b.weights[j], 1e-15);
  }
}

// AdaMoE: zero experts take slots and no weight; a token of zero experts alone has none.
TEST(Select, ZeroExpertsTakeNoWeight) {
  const Selection how{.router = {.norm = RouterNorm::kComputing}, .experts = 6, .per_token = 3, .zero_experts = 3};
  const Selected<double> one = select_from<double>(how, {}, {1, 0, 0, 3, 2, 0});
  EXPECT_THAT(one.experts, ElementsAre(0, 3, 4));
  EXPECT_THAT(one.weights, ElementsAre(1, 0, 0));
  EXPECT_THAT(select_from<double>(how, {}, {0, 0, 0, 3, 2, 1}).weights, ElementsAre(0, 0, 0));
}

TEST(Select, ManyTiesGoToTheLowerIndex) {
  for (const int n : {1, 2, 7, 16, 64})
    for (int k = 1; k <= n; ++k)
      for (const int levels : {1, 3, 1000}) {
        std::vector<double> values(n);
        for (int i = 0; i < n; ++i) values[i] = static_cast<double>(random_bits(n + levels, i) % levels);
        std::vector<std::int32_t> order(n);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
        order.resize(k);
        std::sort(order.begin(), order.end());
        const Selection how{.router = {.score = RouterScore::kOne}, .experts = n, .per_token = k};
        EXPECT_EQ(select_from<double>(how, {}, values).experts, order) << k << " of " << n;
      }
}

TEST(SelectDeathTest, MoreThanThereAre) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Selection how{.router = {}, .experts = 2, .per_token = 3};
  EXPECT_DEATH(select_from<float>(how, {}, {1, 2}), "k 3 of 2");
}

}  // namespace
}  // namespace foe
