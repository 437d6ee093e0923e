#include "kernels/rows/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows/candidates.cc"
#include <hwy/foreach_target.h>

#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Returns the largest of n floats. NaN is ignored, because it is not larger than anything.
float largest_kernel(const float* x, std::size_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  std::size_t i = 0;
  if (n >= 2 * kLanes16) {
    const auto larger = [](V16 a, V16 b) {
      return make16([&](int v) { return hn::IfThenElse(hn::Gt(a.v[v], b.v[v]), a.v[v], b.v[v]); });
    };
    V16 even = set16(largest), odd = even;  // two chains, because each step waits for the one before
    for (; i + 2 * kLanes16 <= n; i += 2 * kLanes16) {
      even = larger(load16(x + i), even);
      odd = larger(load16(x + i + kLanes16), odd);
    }
    largest = max_lane(larger(even, odd));
  }
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// Returns the first index from `i` on with x[index] > bound; n if there is none.
std::size_t find_larger_kernel(const float* x, std::size_t n, std::size_t i, float bound) {
  const DF d;
  const VF bounds = hn::Set(d, bound);
  const auto none = [&](const V16& a) {
    for (int v = 0; v < kVecs; ++v)
      if (!hn::AllFalse(d, hn::Gt(a.v[v], bounds))) return false;
    return true;
  };
  while (i + kLanes16 <= n && none(load16(x + i))) i += kLanes16;
  while (i < n && !(x[i] > bound)) ++i;
  return i;
}

void weights_kernel(const float* logits, int n, float largest, float temperature, float least, float* weights) {
  const V16 most = set16(largest), divisor = set16(temperature);
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 w = exp16(div(sub(load(logits + i), most), divisor));
    store(make16([&](int v) {
            const DF d;
            return hn::IfThenElseZero(hn::Ge(w.v[v], hn::Set(d, least)), w.v[v]);
          }),
          weights + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(largest_kernel);
HWY_EXPORT(find_larger_kernel);
HWY_EXPORT(weights_kernel);

}  // namespace

float largest_logit(std::span<const float> logits) {
  return HWY_DYNAMIC_DISPATCH(largest_kernel)(logits.data(), logits.size());
}

void append_most_likely(std::span<const float> logits, int k, std::int32_t first_token, std::vector<Candidate>& out) {
  FOE_CHECK(k >= 1, "{} tokens", k);
  const std::size_t n = logits.size(), kept = std::min<std::size_t>(k, n), begin = out.size();
  if (n == 0) return;
  const auto append = [&](std::size_t i) {
    const float logit = std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity() : logits[i];
    out.push_back({first_token + static_cast<std::int32_t>(i), logit});
  };
  // Keeps the k most likely of up to 2 k candidates. Returns the least logit of these: later tokens with no larger
  // logit are not among the k most likely.
  const auto drop_worse = [&] {
    const auto first = out.begin() + begin;
    std::nth_element(first, first + kept - 1, out.end(), more_likely);
    out.resize(begin + kept);
    return out.back().logit;
  };
  std::size_t i = 0;
  while (i < kept) append(i++);
  float bound = drop_worse();
  while ((i = HWY_DYNAMIC_DISPATCH(find_larger_kernel)(logits.data(), n, i, bound)) < n) {
    append(i++);
    if (out.size() - begin == 2 * kept) bound = drop_worse();
  }
  drop_worse();
  std::sort(out.begin() + begin, out.end(), more_likely);
}

void softmax_weights(std::span<const float> logits, float largest, float temperature, float least, float* weights) {
  HWY_DYNAMIC_DISPATCH(weights_kernel)
  (logits.data(), static_cast<int>(logits.size()), largest, temperature, least, weights);
}

}  // namespace foe
#endif
