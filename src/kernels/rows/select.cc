#include "kernels/rows/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/rows/rows.h"

namespace foe {
namespace {

// Those of kernels/rows/rows.h for float, and the same for double.
using foe::sigmoid;
using foe::softmax;

void softmax(const double* x, int n, double* y) {
  const double largest = *std::max_element(x, x + n);
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += y[i] = std::exp(x[i] - largest);
  for (int i = 0; i < n; ++i) y[i] /= sum;
}

void sigmoid(const double* x, int n, double* y) {
  for (int i = 0; i < n; ++i) y[i] = 1 / (1 + std::exp(-x[i]));
}

// The k largest of value[begin, end) that are allowed, largest first, ties to the lower index; returns how many they
// are. Insertion into a list kept in descending order: only a strictly larger value goes before.
template <typename T>
int largest(const T* value, const std::uint8_t* allowed, int begin, int end, int k, std::int32_t* chosen) {
  int found = 0;
  for (int i = begin; i < end; ++i) {
    if (found == k && !(value[i] > value[chosen[k - 1]])) continue;
    if (allowed && !allowed[i]) continue;
    int at = found < k ? found++ : k - 1;
    for (; at > 0 && value[i] > value[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = i;
  }
  return found;
}

template <typename T>
T worth_of_group(const Selection& how, const T* by_E, const std::uint8_t* allowed_E, int group) {
  const int size = how.experts / how.router.groups;
  std::int32_t best[2];
  const int wanted = how.router.group_score == GroupScore::kTopTwo ? 2 : 1;
  const int found = largest(by_E, allowed_E, group * size, (group + 1) * size, wanted, best);
  if (found == 0) return -std::numeric_limits<T>::infinity();
  return found == 2 ? by_E[best[0]] + by_E[best[1]] : by_E[best[0]];
}

// Disallows the experts of all but the best router.groups, in each of the H groups.
template <typename T>
void limit_groups(const Selection& how, const T* by_E, std::uint8_t* allowed_E) {
  const int n = how.router.groups, per_h = n / how.expert_groups, size = how.experts / n;
  const int kept = how.router.top_groups / how.expert_groups;
  std::vector<T> worth(n);
  for (int g = 0; g < n; ++g) worth[g] = worth_of_group(how, by_E, allowed_E, g);
  std::vector<std::int32_t> best(kept);
  std::vector<std::uint8_t> keep(n);
  for (int first = 0; first < n; first += per_h) {
    largest<T>(worth.data(), nullptr, first, first + per_h, kept, best.data());
    for (const std::int32_t g : best) keep[g] = 1;
  }
  for (int e = 0; e < how.experts; ++e) allowed_E[e] = allowed_E[e] && keep[e / size];
}

// How many of the selected, best first, it takes until their s reach top_p.
template <typename T>
int prefix(const Selection& how, const T* s_E, int begin, int end, const std::int32_t* selected, int count) {
  T reach = static_cast<T>(how.router.top_p), sum = 0;
  if (how.expert_groups > 1) {
    T total = 0;
    for (int e = begin; e < end; ++e) total += s_E[e];
    reach *= total;
  }
  for (int j = 0; j < count; ++j)
    if ((sum += s_E[selected[j]]) >= reach) return j + 1;
  return count;
}

template <typename T>
void weigh(const Selection& how, const T* s_E, const std::int32_t* experts, int count, T* weights) {
  const RouterConfig& router = how.router;
  for (int j = 0; j < count; ++j) weights[j] = router.score == RouterScore::kOne ? T{1} : s_E[experts[j]];
  if (router.score == RouterScore::kSelectedSoftmax && count > 0) softmax(weights, count, weights);
  if (router.norm != RouterNorm::kNone) {
    const int size = how.experts / how.expert_groups, computing = size - how.zero_experts;
    T sum = 0;
    for (int j = 0; j < count; ++j) {
      if (router.norm == RouterNorm::kComputing && experts[j] % size >= computing) weights[j] = 0;
      sum += weights[j];
    }
    sum = std::max(sum, static_cast<T>(router.norm_min));
    if (sum != 0)  // all of them are zero experts, or their sigmoids have vanished
      for (int j = 0; j < count; ++j) weights[j] /= sum;
  }
  for (int j = 0; j < count; ++j) weights[j] *= static_cast<T>(router.scale);
}

}  // namespace

Selection selection(const ModelConfig& config, int layer) {
  const ExpertsConfig& experts = config.experts(layer);
  if (experts.dense()) return {};
  const ExpertTable table = expert_table(config, layer);
  return {.router = *experts.router,
          .experts = table.scored(),
          .per_token = experts.per_token,
          .expert_groups = experts.router->across_groups ? 1 : config.expert_groups,
          .zero_experts = table.zero / table.groups};
}

template <typename T>
void activate(const Selection& how, T* z_E) {
  if (how.router.score == RouterScore::kSoftmax) softmax(z_E, how.experts, z_E);
  if (how.router.score == RouterScore::kSigmoid) sigmoid(z_E, how.experts, z_E);
}

template <typename T>
int select_activated(const Selection& how, const Controls<T>& controls, const T* s_E, std::int32_t* experts_K,
                     T* weights_K) {
  const int E = how.experts, H = how.expert_groups, size = E / H, k = how.per_token / H;
  FOE_CHECK(k > 0 && k <= size, "k {} of {}", k, size);
  const T* by_E = s_E;
  const std::uint8_t* allowed_E = controls.allowed_E;
  std::vector<T> biased;
  std::vector<std::uint8_t> allowed;
  if (controls.selection_bias_E) {
    biased.assign(s_E, s_E + E);
    for (int e = 0; e < E; ++e) biased[e] += controls.selection_bias_E[e];
    by_E = biased.data();
  }
  if (how.router.top_groups < how.router.groups) {
    allowed.assign(E, 1);
    if (allowed_E) std::copy_n(allowed_E, E, allowed.begin());
    limit_groups(how, by_E, allowed.data());
    allowed_E = allowed.data();
  }
  int count = 0;
  for (int begin = 0; begin < E; begin += size) {
    std::int32_t* selected = experts_K + count;
    int found = largest(by_E, allowed_E, begin, begin + size, k, selected);
    if (how.router.top_p < 1) found = prefix(how, s_E, begin, begin + size, selected, found);
    std::sort(selected, selected + found);
    count += found;
  }
  weigh(how, s_E, experts_K, count, weights_K);
  return count;
}

#define FOE_INSTANTIATE(T)                      \
  template void activate(const Selection&, T*); \
  template int select_activated(const Selection&, const Controls<T>&, const T*, std::int32_t*, T*);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe
