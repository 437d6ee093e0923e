// The row operations of training for any floating-point type, as plain loops, which define them. In f32 they run as the
// vector kernels of kernels/rows/rows.h, which inference uses, too, and train_rows.h, where each is described; a test
// compares the two.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/sum_tree.h"
#include "kernels/rows/rows.h"
#include "kernels/rows/train_rows.h"

namespace foe::train {

using foe::add_scaled;
using foe::add_to;
using foe::combine_rows;
using foe::cross_entropy_row;
using foe::cross_entropy_row_backward;
using foe::dot;
using foe::rms_norm_row;
using foe::rms_norm_row_backward;
using foe::rope;
using foe::scale_row;
using foe::softmax_row;
using foe::softmax_row_backward;
using foe::sum_of_squares;
using foe::swiglu_row;
using foe::swiglu_row_backward;

inline std::size_t product(int a, int b, int c = 1) {
  return static_cast<std::size_t>(a) * b * c;
}

template <typename T>
T dot(const T* a, const T* b, int n) {
  T sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <typename T>
void add_to(T* y, const T* x, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += x[i];
}

template <typename T>
void add_scaled(T* y, const T* x, T scale, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += scale * x[i];
}

template <typename T>
void combine_rows(const T* const* rows, const T* weights, const Merge* merges, int count, int n, T* y) {
  T term[kMaxSummedRows] = {};
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < count; ++j) term[j] = weights[j] * rows[j][i];
    for (int j = 0; j + 1 < count; ++j) term[merges[j].into] += term[merges[j].from];
    y[i] = term[0];
  }
}

template <typename T>
void rope(T* head, const T* cosines, const T* sines, int width) {
  for (int i = 0, half = width / 2; i < half; ++i) {
    const T a = head[i], b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = b * cosines[i] + a * sines[i];
  }
}

template <typename T>
T sum_of_squares(const T* x, int n) {
  return dot(x, x, n);
}

template <typename T>
void scale_row(T* x, const T* weight, T inverse_rms, int n) {
  for (int i = 0; i < n; ++i) x[i] = x[i] * inverse_rms * weight[i];
}

template <typename T>
T rms_norm_row(const T* x, const T* weight, T eps, int n, T* y) {
  const T scale = 1 / std::sqrt(dot(x, x, n) / n + eps);
  for (int i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
  return scale;
}

// y_i = s x_i w_i and ds/dx_j = -s^3 x_j / n, so dx = s dy w - s^3 / n * x * sum(dy w x).
template <typename T>
void rms_norm_row_backward(const T* x, const T* weight, T scale, const T* dy, int n, T* dx, T* dweight) {
  T sum = 0;
  for (int i = 0; i < n; ++i) sum += dy[i] * weight[i] * x[i];
  const T along = -scale * scale * scale * sum / n;
  for (int i = 0; i < n; ++i) {
    dx[i] += scale * dy[i] * weight[i] + along * x[i];
    dweight[i] += dy[i] * x[i] * scale;
  }
}

template <typename T>
T softmax_row(T* x, int n, T scale) {
  T largest = scale * x[0], sum = 0;
  for (int i = 1; i < n; ++i) largest = std::max(largest, scale * x[i]);
  for (int i = 0; i < n; ++i) sum += x[i] = std::exp(scale * x[i] - largest);
  for (int i = 0; i < n; ++i) x[i] /= sum;
  return largest + std::log(sum);
}

template <typename T>
void softmax_row_backward(T* x, T* dy, int n, T scale, T log_sum, T delta) {
  for (int i = 0; i < n; ++i) {
    x[i] = std::exp(scale * x[i] - log_sum);
    dy[i] = scale * x[i] * (dy[i] - delta);
  }
}

template <typename T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

template <typename T>
void swiglu_row(const T* gate, const T* up, T weight, int n, T* h) {
  for (int i = 0; i < n; ++i) h[i] = weight * gate[i] * sigmoid(gate[i]) * up[i];
}

// d silu(g) / dg = sigmoid(g) (1 + g (1 - sigmoid(g)))
template <typename T>
T swiglu_row_backward(const T* gate, const T* up, T weight, const T* dh, int n, T* dgate, T* dup, T* h) {
  T dweight = 0;
  for (int i = 0; i < n; ++i) {
    const T s = sigmoid(gate[i]), silu = gate[i] * s;
    dweight += dh[i] * silu * up[i];
    h[i] = weight * silu * up[i];
    dup[i] = dh[i] * weight * silu;
    dgate[i] = dh[i] * weight * up[i] * s * (1 + gate[i] * (1 - s));
  }
  return dweight;
}

template <typename T>
T cross_entropy_row(const T* logits, int n, std::int32_t target) {
  T sum = 0;
  const T largest = *std::max_element(logits, logits + n);
  for (int i = 0; i < n; ++i) sum += std::exp(logits[i] - largest);
  return largest + std::log(sum) - logits[target];
}

template <typename T>
T cross_entropy_row_backward(T* logits, int n, std::int32_t target, T scale) {
  const T at_target = logits[target];
  const T log_sum = softmax_row(logits, n, T{1});
  for (int i = 0; i < n; ++i) logits[i] *= scale;
  logits[target] -= scale;
  return log_sum - at_target;
}

}  // namespace foe::train
