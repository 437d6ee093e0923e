#include "federate/choices.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/error.h"

namespace foe {

void Choices::add(std::span<const std::int32_t> experts_K, std::span<const float> weights_K) {
  constexpr double kUnits = 1 << 24;
  const auto K = static_cast<std::size_t>(per_token_);
  FOE_CHECK(experts_K.size() == K && weights_K.size() == K, "{} experts and {} weights of {}", experts_K.size(),
            weights_K.size(), K);
  std::vector<int> by_weight(K);
  std::iota(by_weight.begin(), by_weight.end(), 0);
  std::ranges::sort(by_weight, [&](int a, int b) {
    return weights_K[a] != weights_K[b] ? weights_K[a] > weights_K[b] : experts_K[a] < experts_K[b];
  });
  for (const int i : by_weight) {
    FOE_CHECK(experts_K[i] >= 0 && experts_K[i] < experts_, "expert {} of {}", experts_K[i], experts_);
    expert_TK_.push_back(experts_K[i]);
    weight_TK_.push_back(std::llround(kUnits * weights_K[i]));
  }
}

int kept_per_group(const Choices& choices, int groups) {
  return (choices.per_token() + groups - 1) / groups;
}

Lost lost(const Choices& choices, std::span<const int> group_E, int groups) {
  const int kept = kept_per_group(choices, groups);
  Lost all;
  std::vector<int> count_H(groups);
  for (int t = 0; t < choices.tokens(); ++t) {
    std::ranges::fill(count_H, 0);
    for (int i = 0; i < choices.per_token(); ++i)
      if (++count_H[group_E[choices.experts_of(t)[i]]] > kept) {
        ++all.choices;
        all.weight += choices.weights_of(t)[i];
      }
  }
  return all;
}

std::int64_t total_weight(const Choices& choices) {
  std::int64_t sum = 0;
  for (int t = 0; t < choices.tokens(); ++t)
    for (const std::int64_t weight : choices.weights_of(t)) sum += weight;
  return sum;
}

std::vector<Choices> choices_of(const RouteFile& record, const ModelConfig& config, const std::string& identity) {
  if (record.origin().model != identity)
    fail("routes: expected a record of this model, whose digest is {}, got one of {}", identity, record.origin().model);
  const RouteForm& form = record.form();
  if (form.layers != config.num_layers())
    fail("routes: expected a record of {} layers, got {}", config.num_layers(), form.layers);
  std::vector<Choices> all;
  for (int l = 0; l < form.layers; ++l) {
    const ExpertsConfig& experts = config.experts(l);
    if (record.origin().experts[l] != experts.count || form.entries < experts.per_token)
      fail("routes: expected {} experts in layer {}, {} of each token, got {} and {}", experts.count, l,
           experts.per_token, record.origin().experts[l], form.entries);
    all.emplace_back(experts.count, experts.per_token);
  }
  for (const std::int64_t sequence : record.sequences()) {
    const Route route = record.route(sequence).route;
    for (int t = 0; t < route.tokens(); ++t)
      for (int l = 0; l < form.layers; ++l) {
        const std::size_t at = (static_cast<std::size_t>(t) * form.layers + l) * form.entries;
        const auto K = static_cast<std::size_t>(config.experts(l).per_token);
        const std::span<const std::int32_t> ids = std::span(route.experts_TLK).subspan(at, K);
        if (ids.front() == kNotRun) continue;
        if (ids.back() == kNoExpert)
          fail("routes: expected {} experts of each token, got fewer in sequence {}, position {}, layer {}", K,
               sequence, t, l);
        all[l].add(ids, std::span(route.weights_TLK).subspan(at, K));
      }
  }
  for (std::size_t l = 0; l < all.size(); ++l)
    if (all[l].tokens() == 0) fail("routes: expected at least one token in layer {}, got none", l);
  return all;
}

}  // namespace foe
