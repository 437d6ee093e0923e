// The definitions of the kernels, as plain loops in double. They say what the fast kernels compute, and tests compare
// the two. Arrays are row-major; shapes are in the names. Nothing here is meant to be fast.
//
// T rows (tokens), D width of a row, N outputs, K inputs, S keys, n query heads, m KV heads, C head width.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/formats/kv_format.h"

namespace foe::ref {

using Values = std::vector<double>;

// y[t, n] = sum_k x[t, k] w[n, k]. As in a checkpoint, each row of the weights is one output.
Values matmul(const Values& x_TK, const Values& w_NK, int T, int N, int K);

// The same with a weight matrix chosen for each row: y[t, n] = sum_k x[t, k] w[expert[t], n, k].
Values grouped_matmul(const Values& x_TK, const Values& w_ENK, const std::vector<int>& expert_T, int N, int K);

// x / (1 + e^-x)
double silu(double x);

// silu(gate) * up, element by element.
Values swiglu(const Values& gate, const Values& up);

// x / sqrt(mean(x^2) + eps) * weight, over rows as wide as `weight`.
Values rms_norm(const Values& x_TD, const Values& weight_D, double eps);

// Rotates one head to `position`: the elements i and i + C/2 by the angle position / factor * theta^(-2i / C).
Values rope(const Values& head_C, double position, double theta, double factor);

// e^x_i / sum_j e^x_j; a score of -inf gives 0.
Values softmax(const Values& scores);

// Causal attention with grouped heads, over the keys and values of one sequence at positions 0 .. S-1. The T queries
// are at the last T positions, and query head h reads KV head h / (n / m). Scores are multiplied by 1 / sqrt(C).
Values attention(const Values& q_TnC, const Values& k_SmC, const Values& v_SmC, int T, int n, int m, int C);

// The keys and values of one sequence at positions 0 .. S-1, read from the KV blocks of a layer.
struct StoredKv {
  Values k_SmC, v_SmC;
};
StoredKv read_kv(const KvShape& shape, const std::byte* layer_kv, const std::vector<std::int32_t>& blocks, int S);

// sum_j weights[j] * rows[j, :]
Values combine(const Values& rows_KD, const Values& weights_K, int D);

}  // namespace foe::ref
