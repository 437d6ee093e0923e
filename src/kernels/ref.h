// The definitions of the kernels, as plain loops in double. They say what the fast kernels compute, and tests compare
// the two. Arrays are row-major; shapes are in the names. Nothing here is meant to be fast.
//
// T rows (tokens), D width of a row, N outputs, K inputs, S keys, n query heads, m KV heads, C width of a query or key,
// W width of a value.
#pragma once

#include <cstdint>
#include <vector>

#include "core/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/formats/kv_format.h"

namespace foe::ref {

using Values = std::vector<double>;

// y[t, n] = sum_k x[t, k] w[n, k]. As in a model folder, each row of the weights is one output.
Values matmul(const Values& x_TK, const Values& w_NK, int T, int N, int K);

// The same with a weight matrix chosen for each row: y[t, n] = sum_k x[t, k] w[expert[t], n, k].
Values grouped_matmul(const Values& x_TK, const Values& w_ENK, const std::vector<int>& expert_T, int N, int K);

// x / (1 + e^-x)
double silu(double x);

double activate(Activation activation, double x);

// act(gate) * up, element by element, with what `shape` says besides.
Values gated(const Values& gate, const Values& up, Activation activation = Activation::kSilu,
             const GateShape& shape = {});

// x / sqrt(mean(x^2) + eps) * weight, over rows as wide as `weight`.
Values rms_norm(const Values& x_TD, const Values& weight_D, double eps);

// Rotates the first `width` elements of one head to `position`: the elements i and i + width/2 or, interleaved, 2i and
// 2i + 1, by the angle position / factor * theta^(-2i / width).
Values rope(const Values& head_C, double position, double theta, double factor, int width, bool interleaved);

// e^x_i / sum_j e^x_j; a score of -inf gives 0.
Values softmax(const Values& scores);

// The scores of one query with the keys of a head at positions 0 .. keys-1, the last of which is its own: -inf if the
// window hides the key. Sinks are not among them.
Values scores(const AttentionParams& params, const double* q_C, const Values& k_SmC, int keys, int m, int kv_head,
              int C);

// Causal attention with grouped heads, over the keys and values of one sequence at positions 0 .. S-1. The T queries
// are at the last T positions, and query head h reads KV head h / (n / m).
Values attention(const AttentionParams& params, const Values& q_TnC, const Values& k_SmC, const Values& v_SmW, int T,
                 int n, int m, int C, int W);

// The keys and values of one sequence at positions 0 .. S-1, read from the KV blocks of a layer.
struct StoredKv {
  Values k_SmC, v_SmW;
};
StoredKv read_kv(const KvShape& shape, const std::byte* layer_kv, const std::vector<std::int32_t>& blocks, int S);

// sum_j weights[j] * rows[j, :]
Values combine(const Values& rows_KD, const Values& weights_K, int D);

}  // namespace foe::ref
