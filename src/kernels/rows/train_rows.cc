#include "kernels/rows/train_rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows/train_rows.cc"
#include <hwy/foreach_target.h>

#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

float dot_kernel(const float* a, const float* b, int n) {
  V16 sum = zero16();
  for_each16(n, [&](int i, auto load, auto) { sum = fma(load(a + i), load(b + i), sum); });
  return sum_lanes(sum);
}

void norm_kernel(const float* x, const float* weight, float scale, int n, float* y) {
  const V16 s = set16(scale);
  for_each16(n, [&](int i, auto load, auto store) { store(mul(mul(load(x + i), s), load(weight + i)), y + i); });
}

void norm_backward_kernel(const float* x, const float* weight, float scale, const float* dy, int n, float* dx,
                          float* dweight) {
  V16 sum = zero16();
  for_each16(n, [&](int i, auto load, auto) { sum = fma(mul(load(dy + i), load(weight + i)), load(x + i), sum); });
  const V16 s = set16(scale), along = set16(-scale * scale * scale * sum_lanes(sum) / static_cast<float>(n));
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 g = load(dy + i), v = load(x + i);
    const V16 d = fma(along, v, mul(s, mul(g, load(weight + i))));
    store(add(load(dx + i), d), dx + i);
    store(fma(g, mul(v, s), load(dweight + i)), dweight + i);
  });
}

// Returns the largest of scale * x.
float scaled_maximum(const float* x, int n, V16 scale) {
  int i = 0;
  V16 top = set16(-HUGE_VALF);
  for (; i + kLanes16 <= n; i += kLanes16) top = max(top, mul(scale, load16(x + i)));
  float largest = max_lane(top);
  for (; i < n; ++i) largest = std::max(largest, x[i] * max_lane(scale));
  return largest;
}

// Returns the sum of exp(scale * x - shift). If `out` is not null, the terms are written there.
float sum_of_exponentials(const float* x, int n, V16 scale, float shift, float* out) {
  const V16 s = set16(shift);
  V16 sum = zero16();
  int i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 e = exp16(sub(mul(scale, load16(x + i)), s));
    if (out) store16(e, out + i);
    sum = add(sum, e);
  }
  if (const int rest = n - i; rest > 0) {
    HWY_ALIGN float last[kLanes16] = {};
    store_first(exp16(sub(mul(scale, load_first(x + i, rest)), s)), last, rest);
    if (out) std::copy_n(last, rest, out + i);
    sum = add(sum, load16(last));
  }
  return sum_lanes(sum);
}

void scale_kernel(float* x, int n, V16 by) {
  for_each16(n, [&](int i, auto load, auto store) { store(mul(load(x + i), by), x + i); });
}

float softmax_kernel(float* x, int n, float scale) {
  const V16 by = set16(scale);
  const float largest = scaled_maximum(x, n, by);
  const float sum = sum_of_exponentials(x, n, by, largest, x);
  scale_kernel(x, n, set16(1.0f / sum));
  return largest + std::log(sum);
}

void softmax_backward_kernel(float* x, float* dy, int n, float scale, float log_sum, float delta) {
  const V16 by = set16(scale), shift = set16(log_sum), d = set16(delta);
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 y = exp16(sub(mul(by, load(x + i)), shift));
    store(y, x + i);
    store(mul(mul(by, y), sub(load(dy + i), d)), dy + i);
  });
}

// 1 / (1 + e^-x)
HWY_INLINE V16 sigmoid16(V16 x) {
  return div(set16(1.0f), add(set16(1.0f), exp16(sub(zero16(), x))));
}

void swiglu_kernel(const float* gate, const float* up, float weight, int n, float* h) {
  const V16 w = set16(weight);
  for_each16(n, [&](int i, auto load, auto store) { store(mul(w, mul(silu16(load(gate + i)), load(up + i))), h + i); });
}

float swiglu_backward_kernel(const float* gate, const float* up, float weight, const float* dh, int n, float* dgate,
                             float* dup, float* h) {
  const V16 w = set16(weight), one = set16(1.0f);
  V16 dweight = zero16();
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 g = load(gate + i), u = load(up + i), d = load(dh + i);
    const V16 sigmoid = sigmoid16(g), silu = mul(g, sigmoid), product = mul(silu, u), dw = mul(d, w);
    dweight = fma(d, product, dweight);
    store(mul(w, product), h + i);
    store(mul(dw, silu), dup + i);
    store(mul(mul(dw, u), mul(sigmoid, fma(g, sub(one, sigmoid), one))), dgate + i);
  });
  return sum_lanes(dweight);
}

float cross_entropy_kernel(const float* logits, int n, std::int32_t target) {
  const V16 one = set16(1.0f);
  const float largest = scaled_maximum(logits, n, one);
  return largest + std::log(sum_of_exponentials(logits, n, one, largest, nullptr)) - logits[target];
}

float cross_entropy_backward_kernel(float* logits, int n, std::int32_t target, float scale) {
  const V16 one = set16(1.0f);
  const float largest = scaled_maximum(logits, n, one), at_target = logits[target];
  const float sum = sum_of_exponentials(logits, n, one, largest, logits);
  scale_kernel(logits, n, set16(scale / sum));
  logits[target] -= scale;
  return largest + std::log(sum) - at_target;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(dot_kernel);
HWY_EXPORT(norm_kernel);
HWY_EXPORT(norm_backward_kernel);
HWY_EXPORT(softmax_kernel);
HWY_EXPORT(softmax_backward_kernel);
HWY_EXPORT(swiglu_kernel);
HWY_EXPORT(swiglu_backward_kernel);
HWY_EXPORT(cross_entropy_kernel);
HWY_EXPORT(cross_entropy_backward_kernel);

}  // namespace

float dot(const float* a, const float* b, int n) {
  return HWY_DYNAMIC_DISPATCH(dot_kernel)(a, b, n);
}

float rms_norm_row(const float* x, const float* weight, float eps, int n, float* y) {
  const float scale = 1.0f / std::sqrt(dot(x, x, n) / static_cast<float>(n) + eps);
  HWY_DYNAMIC_DISPATCH(norm_kernel)(x, weight, scale, n, y);
  return scale;
}

void rms_norm_row_backward(const float* x, const float* weight, float scale, const float* dy, int n, float* dx,
                           float* dweight) {
  HWY_DYNAMIC_DISPATCH(norm_backward_kernel)(x, weight, scale, dy, n, dx, dweight);
}

float softmax_row(float* x, int n, float scale) {
  return HWY_DYNAMIC_DISPATCH(softmax_kernel)(x, n, scale);
}

void softmax_row_backward(float* x, float* dy, int n, float scale, float log_sum, float delta) {
  HWY_DYNAMIC_DISPATCH(softmax_backward_kernel)(x, dy, n, scale, log_sum, delta);
}

void swiglu_row(const float* gate, const float* up, float weight, int n, float* h) {
  HWY_DYNAMIC_DISPATCH(swiglu_kernel)(gate, up, weight, n, h);
}

float swiglu_row_backward(const float* gate, const float* up, float weight, const float* dh, int n, float* dgate,
                          float* dup, float* h) {
  return HWY_DYNAMIC_DISPATCH(swiglu_backward_kernel)(gate, up, weight, dh, n, dgate, dup, h);
}

float cross_entropy_row(const float* logits, int n, std::int32_t target) {
  return HWY_DYNAMIC_DISPATCH(cross_entropy_kernel)(logits, n, target);
}

float cross_entropy_row_backward(float* logits, int n, std::int32_t target, float scale) {
  return HWY_DYNAMIC_DISPATCH(cross_entropy_backward_kernel)(logits, n, target, scale);
}

}  // namespace foe
#endif
