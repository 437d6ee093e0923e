#include "bench/routing_skew.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "model/expert_load.h"
#include "placement/placement.h"

namespace foe {
namespace {

constexpr int kTokens = 1024;  // random tokens, over which expectations are taken

// Returns the rows of the fullest rank over those of the median rank if the first rank's experts have this bias.
double balance_with(double bias, const ModelConfig& c, const Placement& placement,
                    const std::vector<float>& scores_TE) {
  const int E = c.experts(0).count, K = c.experts(0).per_token;
  std::vector<double> rows_E(E);
  std::vector<float> score(E);
  std::vector<int> order(E);
  for (int t = 0; t < kTokens; ++t) {
    std::copy_n(scores_TE.begin() + static_cast<std::ptrdiff_t>(t) * E, E, score.begin());
    for (int e = 0; e < placement.ranks[0].experts(0).end; ++e) score[e] += static_cast<float>(bias);
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + K - 1, order.end(),
                     [&](int a, int b) { return score[a] > score[b]; });
    for (int j = 0; j < K; ++j) ++rows_E[order[j]];
  }
  std::vector<double> rows;
  for (const Share& share : placement.ranks)
    rows.push_back(
        std::accumulate(rows_E.begin() + share.experts(0).begin, rows_E.begin() + share.experts(0).end, 0.0));
  return fullest_over_median(std::move(rows));
}

}  // namespace

std::vector<float> skewed_router_bias(ModelConfig config, int ranks, double skew) {
  if (skew == 1) return {};
  config.expert_groups = 1;
  config.residual = Residual::kShared;
  const Placement placement = make_placement(config, Plan::kEp, ranks);
  std::vector<float> scores_TE(static_cast<std::size_t>(kTokens) * config.experts(0).count);
  for (std::size_t i = 0; i < scores_TE.size(); ++i) scores_TE[i] = static_cast<float>(random_normal(77, i));
  double low = 0, high = 16;  // 16 is far above any difference between scores
  const double most = balance_with(high, config, placement, scores_TE);
  if (skew > most) fail("--skew: expected at most {:.3g} with {} ranks, got {}", most, ranks, skew);
  for (int i = 0; i < 16; ++i) {
    const double middle = (low + high) / 2;
    (balance_with(middle, config, placement, scores_TE) < skew ? low : high) = middle;
  }
  std::vector<float> bias_E(config.experts(0).count);
  std::fill_n(bias_E.begin(), placement.ranks[0].experts(0).end, static_cast<float>(high));
  return bias_E;
}

}  // namespace foe
