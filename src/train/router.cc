#include "train/router.h"

#include <algorithm>

#include "base/error.h"
#include "core/share.h"
#include "kernels/rows/select.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Replaces what was selected by what the route has.
template <typename T>
void force(const Dims& d, int layer, int tokens, const Route& route, Routing<T>& r) {
  if (route.layers != d.layers || route.entries != d.top_k || route.tokens() != tokens)
    fail("route: expected {} tokens, {} layers and {} experts of a token, got {}, {} and {}", tokens, d.layers, d.top_k,
         route.tokens(), route.layers, route.entries);
  for (int t = 0; t < tokens; ++t) {
    const std::size_t from = (product(t, d.layers) + layer) * d.top_k, to = product(t, d.top_k);
    const std::int32_t* experts = route.experts_TLK.data() + from;
    if (experts[0] == kNotRun) continue;
    for (int k = 0; k < d.top_k; ++k)
      if (experts[k] < 0 || experts[k] >= d.experts || (k > 0 && experts[k] <= experts[k - 1]) ||
          experts[k] / d.group_experts() != k / (d.top_k / d.groups))
        fail("route: token {}: layer {}: expected {} experts of each of {} groups, ascending, got {} at place {}", t,
             layer, d.top_k / d.groups, d.groups, experts[k], k);
    std::copy_n(experts, d.top_k, r.expert_TK.data() + to);
    std::copy_n(route.weights_TLK.data() + from, d.top_k, r.weight_TK.data() + to);
  }
}

// Sorts all selections by expert, with tokens in order (a counting sort).
template <typename T>
void sort_by_expert(const Dims& d, int tokens, Routing<T>& r) {
  std::fill(r.first_E.begin(), r.first_E.end(), 0);
  const int slots = tokens * d.top_k;
  for (int slot = 0; slot < slots; ++slot)
    if (r.has_row(d, slot)) ++r.first_E[r.expert_TK[slot] + 1];
  for (int e = 0; e < d.experts; ++e) r.first_E[e + 1] += r.first_E[e];
  std::vector<std::int32_t> next(r.first_E.begin(), r.first_E.end() - 1);
  for (int slot = 0; slot < slots; ++slot) {
    r.row_TK[slot] = -1;
    if (!r.has_row(d, slot)) continue;
    const std::int32_t row = next[r.expert_TK[slot]]++;
    r.token_R[row] = slot / d.top_k;
    r.slot_R[row] = slot;
    r.row_TK[slot] = row;
  }
}

// The groups that count in the losses of a token: all or, where groups route, its own.
template <typename T>
Range counted_groups(const Dims& d, const Routing<T>& r, int token) {
  if (r.group_tokens == 0) return {0, d.groups};
  const int group = d.first_stream + token / r.group_tokens;
  return {group, group + 1};
}

// Returns f_e: the share of the selections in the expert's group that went to this expert.
template <typename T>
double chosen_share(const Dims& d, int tokens, const Routing<T>& r, int expert) {
  return static_cast<double>(r.rows(expert)) * d.groups / (static_cast<double>(tokens) * d.top_k);
}

// What some tokens, of which the same groups count, add to the losses.
template <typename T>
RouterLosses router_losses(const Dims& d, const Range& tokens, const Routing<T>& r) {
  std::vector<double> mean(d.experts);
  RouterLosses losses;
  for (int t = tokens.begin; t < tokens.end; ++t) {
    const Range groups = counted_groups(d, r, t);
    for (int e = groups.begin * d.group_experts(); e < groups.end * d.group_experts(); ++e)
      mean[e] += r.p_TE[product(t, d.experts) + e];
    for (int g = groups.begin; g < groups.end; ++g)
      losses.z += static_cast<double>(r.log_sum_TH[product(t, d.groups) + g]) * r.log_sum_TH[product(t, d.groups) + g];
  }
  const Range groups = counted_groups(d, r, tokens.begin);
  for (int e = groups.begin * d.group_experts(); e < groups.end * d.group_experts(); ++e)
    losses.balance += d.experts * chosen_share(d, tokens.size(), r, e) * mean[e] / tokens.size() / d.groups;
  losses.z /= static_cast<double>(tokens.size()) * d.groups;
  return losses;
}

}  // namespace

template <typename T>
Routing<T>::Routing(const Dims& d, int tokens)
    : p_TE(static_cast<std::size_t>(tokens) * d.experts),
      share_TE(static_cast<std::size_t>(tokens) * d.experts),
      log_sum_TH(static_cast<std::size_t>(tokens) * d.groups),
      weight_TK(static_cast<std::size_t>(tokens) * d.top_k),
      expert_TK(static_cast<std::size_t>(tokens) * d.top_k),
      first_E(d.experts + 1),
      token_R(expert_TK.size()),
      slot_R(expert_TK.size()),
      row_TK(expert_TK.size()) {}

template <typename T>
void route(const ModelConfig& config, const Dims& d, int layer, int tokens, const Route* forced, Routing<T>& r) {
  const Selection how = selection(config, 0);
  r.group_tokens = config.syncs(layer) ? 0 : tokens / d.streams;
  if (forced && r.group_tokens > 0)
    fail("route: expected a model with group_sync_every = 1, got {}", config.group_sync_every);
  for (int t = 0; t < tokens; ++t) {
    T* share = r.share_TE.data() + static_cast<std::size_t>(t) * d.experts;
    T* p = std::copy_n(share, d.experts, r.p_TE.data() + static_cast<std::size_t>(t) * d.experts) - d.experts;
    activate<T>(how, p);
    for (int g = 0; g < d.groups; ++g)
      r.log_sum_TH[static_cast<std::size_t>(t) * d.groups + g] =
          softmax_row(share + g * d.group_experts(), d.group_experts(), T{1});
    const std::size_t at = static_cast<std::size_t>(t) * d.top_k;
    select_activated<T>(how, {}, p, r.expert_TK.data() + at, r.weight_TK.data() + at);
  }
  if (forced) force(d, layer, tokens, *forced, r);
  sort_by_expert(d, tokens, r);
  r.losses.clear();
  const int counted = r.group_tokens == 0 ? tokens : r.group_tokens;
  for (int t = 0; t < tokens; t += counted) r.losses.push_back(router_losses(d, {t, t + counted}, r));
}

template <typename T>
void route_backward(const ModelConfig& config, const Dims& d, int tokens, const Routing<T>& r, const T* dweight_TK,
                    const RouterLosses& losses, T* dscores_TE) {
  const int n = d.group_experts(), of_group = r.group_tokens == 0 ? tokens : r.group_tokens;
  std::vector<T> dp(d.experts), balance(d.experts);
  for (int e = 0; e < d.experts; ++e)
    balance[e] = static_cast<T>(losses.balance * d.experts * chosen_share(d, of_group, r, e) / of_group / d.groups);
  const T z = static_cast<T>(losses.z * 2 / (static_cast<double>(of_group) * d.groups));
  for (int t = 0; t < tokens; ++t) {
    const T* p = r.p_TE.data() + static_cast<std::size_t>(t) * d.experts;
    const T* share = r.share_TE.data() + static_cast<std::size_t>(t) * d.experts;
    const T* dweight = dweight_TK + static_cast<std::size_t>(t) * d.top_k;
    const T* weight = r.weight_TK.data() + static_cast<std::size_t>(t) * d.top_k;
    const std::int32_t* chosen = r.expert_TK.data() + static_cast<std::size_t>(t) * d.top_k;
    T* dscores = dscores_TE + static_cast<std::size_t>(t) * d.experts;

    const Range groups = counted_groups(d, r, t);
    std::fill(dp.begin(), dp.end(), T{0});
    std::copy(balance.begin() + groups.begin * n, balance.begin() + groups.end * n, dp.begin() + groups.begin * n);
    T total = 1, along = 0;
    if (config.experts(0).router->norm != RouterNorm::kNone) {  // w_i = p_i / S: dw_i/dp_j = ([i = j] - w_i) / S
      total = 0;
      for (int j = 0; j < d.top_k; ++j) total += p[chosen[j]], along += weight[j] * dweight[j];
    }
    for (int j = 0; j < d.top_k; ++j) dp[chosen[j]] += (dweight[j] - along) / total;
    T inner = 0;
    for (int e = 0; e < d.experts; ++e) inner += p[e] * dp[e];
    for (int e = 0; e < d.experts; ++e)
      dscores[e] = p[e] * (dp[e] - inner) +
                   (groups.contains(e / n) ? z : T{0}) * r.log_sum_TH[product(t, d.groups) + e / n] * share[e];
  }
}

#define FOE_INSTANTIATE(T)                                                                                             \
  template struct Routing<T>;                                                                                          \
  template void route(const ModelConfig&, const Dims&, int, int, const Route*, Routing<T>&);                           \
  template void route_backward(const ModelConfig&, const Dims&, int, const Routing<T>&, const T*, const RouterLosses&, \
                               T*);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
