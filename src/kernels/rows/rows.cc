#include "kernels/rows/rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rows/rows.cc"
#include <hwy/foreach_target.h>

#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

float sum_of_squares_kernel(const float* x, const float* plus, int n) {
  V16 sum = zero16();
  for_each16(n, [&](int i, auto load, auto) {
    const V16 v = plus ? add(load(x + i), load(plus + i)) : load(x + i);
    sum = fma(v, v, sum);
  });
  return sum_lanes(sum);
}

void scale_row_kernel(const float* x, const float* plus, const float* weight, float scale, int n, float* y) {
  const V16 s = set16(scale);
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 v = plus ? add(load(x + i), load(plus + i)) : load(x + i);
    store(mul(mul(v, s), load(weight + i)), y + i);
  });
}

void rope_kernel(float* head, const float* cosines, const float* sines, int width) {
  const int half = width / 2;
  for_each16(half, [&](int i, auto load, auto store) {
    const V16 a = load(head + i), b = load(head + half + i), c = load(cosines + i), s = load(sines + i);
    store(sub(mul(a, c), mul(b, s)), head + i);
    store(add(mul(b, c), mul(a, s)), head + half + i);
  });
}

void rope_interleaved_kernel(float* head, const float* cosines, const float* sines, int width) {
  const int half = width / 2;
  int i = 0;
  for (; i + kVecLanes <= half; i += kVecLanes) {
    VF a, b;
    hn::LoadInterleaved2(DF(), head + 2 * i, a, b);
    const VF c = hn::LoadU(DF(), cosines + i), s = hn::LoadU(DF(), sines + i);
    hn::StoreInterleaved2(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), hn::Add(hn::Mul(b, c), hn::Mul(a, s)), DF(),
                          head + 2 * i);
  }
  for (; i < half; ++i) {
    const float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * cosines[i] - b * sines[i];
    head[2 * i + 1] = b * cosines[i] + a * sines[i];
  }
}

void scale_and_cap_kernel(float* x, int n, float factor, float cap) {
  const V16 f = set16(factor), c = set16(cap);
  for_each16(n, [&](int i, auto load, auto store) {
    const V16 scaled = mul(f, load(x + i));
    store(cap > 0 ? mul(c, tanh16(div(scaled, c))) : scaled, x + i);
  });
}

void add_scaled_kernel(float* y, const float* x, float scale, std::size_t n) {
  const V16 s = set16(scale);
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) store16(add(load16(y + i), mul(s, load16(x + i))), y + i);
  for (; i < n; ++i) y[i] += scale * x[i];
}

void add_to_kernel(float* y, const float* x, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) store16(add(load16(y + i), load16(x + i)), y + i);
  for (; i < n; ++i) y[i] += x[i];
}

void softmax_kernel(const float* scores, int n, float* probabilities) {
  const V16 largest = set16(*std::max_element(scores, scores + n));
  V16 sum = zero16();
  int i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 e = exp16(sub(load16(scores + i), largest));
    store16(e, probabilities + i);
    sum = add(sum, e);
  }
  if (const int rest = n - i; rest > 0) {
    store_first(exp16(sub(load_first(scores + i, rest), largest)), probabilities + i, rest);
    sum = add(sum, load_first(probabilities + i, rest));
  }
  const V16 total = set16(sum_lanes(sum));
  for_each16(n, [&](int j, auto load, auto store) { store(div(load(probabilities + j), total), probabilities + j); });
}

void sigmoid_kernel(const float* x, int n, float* y) {
  const V16 one = set16(1.0f);
  for_each16(
      n, [&](int i, auto load, auto store) { store(div(one, add(one, exp16(sub(zero16(), load(x + i))))), y + i); });
}

void add_two_kernel(const float* a, const float* b, std::size_t n, float* y) {
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) store16(add(load16(a + i), load16(b + i)), y + i);
  for (; i < n; ++i) y[i] = a[i] + b[i];
}

void add_rows_kernel(const float* const* rows, const Merge* merges, int count, std::size_t n, float* y) {
  if (count == 2) return add_two_kernel(rows[0], rows[1], n, y);
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    V16 term[kMaxSummedRows];
    for (int j = 0; j < count; ++j) term[j] = load16(rows[j] + i);
    for (int j = 0; j + 1 < count; ++j) term[merges[j].into] = add(term[merges[j].into], term[merges[j].from]);
    store16(term[0], y + i);
  }
  for (; i < n; ++i) {
    float term[kMaxSummedRows] = {};
    for (int j = 0; j < count; ++j) term[j] = rows[j][i];
    for (int j = 0; j + 1 < count; ++j) term[merges[j].into] += term[merges[j].from];
    y[i] = term[0];
  }
}

void combine_rows_kernel(const float* const* rows, const float* weights, const Merge* merges, int count, int n,
                         float* y) {
  for_each16(n, [&](int i, auto load, auto store) {
    V16 term[kMaxSummedRows];
    for (int j = 0; j < count; ++j) term[j] = mul(set16(weights[j]), load(rows[j] + i));
    for (int j = 0; j + 1 < count; ++j) term[merges[j].into] = add(term[merges[j].into], term[merges[j].from]);
    store(add(count > 0 ? term[0] : zero16(), zero16()), y + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(sum_of_squares_kernel);
HWY_EXPORT(scale_row_kernel);
HWY_EXPORT(rope_kernel);
HWY_EXPORT(rope_interleaved_kernel);
HWY_EXPORT(scale_and_cap_kernel);
HWY_EXPORT(add_scaled_kernel);
HWY_EXPORT(add_to_kernel);
HWY_EXPORT(softmax_kernel);
HWY_EXPORT(sigmoid_kernel);
HWY_EXPORT(add_rows_kernel);
HWY_EXPORT(combine_rows_kernel);

}  // namespace

void rms_norm(ThreadPool& pool, const RowNorm& norm) {
  constexpr int kBlock = 16;  // rows per task
  const std::size_t blocks = (norm.rows + kBlock - 1) / kBlock;
  pool.parallel_for(norm.times * blocks, [&](std::size_t task) {
    const std::size_t time = task / blocks;
    const int begin = static_cast<int>(task % blocks) * kBlock, end = std::min(norm.rows, begin + kBlock);
    float* const y = norm.y + time * norm.rows * norm.y_stride;
    for (int row = begin; row < end; ++row) {
      const float* x = norm.x + row * norm.x_stride;
      const float* plus = norm.add ? norm.add + time * norm.add_stride + row * norm.x_stride : nullptr;
      const float squares = HWY_DYNAMIC_DISPATCH(sum_of_squares_kernel)(x, plus, norm.n);
      const float scale = 1.0f / std::sqrt(squares / static_cast<float>(norm.n) + norm.eps);
      HWY_DYNAMIC_DISPATCH(scale_row_kernel)(x, plus, norm.weight, scale, norm.n, y + row * norm.y_stride);
    }
  });
}

float sum_of_squares(const float* x, int n) {
  return HWY_DYNAMIC_DISPATCH(sum_of_squares_kernel)(x, nullptr, n);
}

void scale_row(float* x, const float* weight, float inverse_rms, int n) {
  HWY_DYNAMIC_DISPATCH(scale_row_kernel)(x, nullptr, weight, inverse_rms, n, x);
}

void rope_angles(int position, const RopeFrequencies& frequencies, float* cosines, float* sines) {
  for (std::size_t i = 0; i < frequencies.inverse.size(); ++i) {
    const double exact = position / frequencies.stretch * frequencies.inverse[i];
    const double angle = frequencies.f32 ? static_cast<float>(exact) : exact;
    cosines[i] = static_cast<float>(frequencies.factor * std::cos(angle));
    sines[i] = static_cast<float>(frequencies.factor * std::sin(angle));
  }
}

void rope(float* head, const float* cosines, const float* sines, int width) {
  HWY_DYNAMIC_DISPATCH(rope_kernel)(head, cosines, sines, width);
}

void rope_interleaved(float* head, const float* cosines, const float* sines, int width) {
  HWY_DYNAMIC_DISPATCH(rope_interleaved_kernel)(head, cosines, sines, width);
}

void scale_and_cap(float* x, int n, float factor, float cap) {
  if (factor == 1 && cap == 0) return;
  HWY_DYNAMIC_DISPATCH(scale_and_cap_kernel)(x, n, factor, cap);
}

void add_scaled(float* y, const float* x, float scale, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(add_scaled_kernel)(y, x, scale, n);
}

void add_to(float* y, const float* x, std::size_t n) {
  HWY_DYNAMIC_DISPATCH(add_to_kernel)(y, x, n);
}

void softmax(const float* scores, int n, float* probabilities) {
  HWY_DYNAMIC_DISPATCH(softmax_kernel)(scores, n, probabilities);
}

void sigmoid(const float* x, int n, float* y) {
  HWY_DYNAMIC_DISPATCH(sigmoid_kernel)(x, n, y);
}

void add_rows(const float* const* rows, const Merge* merges, int count, std::size_t n, float* y) {
  FOE_CHECK(count >= 1 && count <= kMaxSummedRows, "{} rows", count);
  HWY_DYNAMIC_DISPATCH(add_rows_kernel)(rows, merges, count, n, y);
}

void combine_rows(const float* const* rows, const float* weights, const Merge* merges, int count, int n, float* y) {
  FOE_CHECK(count <= kMaxSummedRows, "{} experts per token and group", count);
  HWY_DYNAMIC_DISPATCH(combine_rows_kernel)(rows, weights, merges, count, n, y);
}

}  // namespace foe
#endif
