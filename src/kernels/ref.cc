#include "kernels/ref.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/dtype.h"

namespace foe::ref {

Values matmul(const Values& x_TK, const Values& w_NK, int T, int N, int K) {
  return grouped_matmul(x_TK, w_NK, std::vector<int>(T, 0), N, K);
}

Values grouped_matmul(const Values& x_TK, const Values& w_ENK, const std::vector<int>& expert_T, int N, int K) {
  const int T = static_cast<int>(expert_T.size());
  Values y_TN(static_cast<std::size_t>(T) * N);
  for (int t = 0; t < T; ++t)
    for (int n = 0; n < N; ++n) {
      const double* x = x_TK.data() + static_cast<std::size_t>(t) * K;
      const double* w = w_ENK.data() + (static_cast<std::size_t>(expert_T[t]) * N + n) * K;
      y_TN[static_cast<std::size_t>(t) * N + n] = std::inner_product(x, x + K, w, 0.0);
    }
  return y_TN;
}

double silu(double x) {
  return x / (1 + std::exp(-x));
}

Values swiglu(const Values& gate, const Values& up) {
  Values h(gate.size());
  for (std::size_t i = 0; i < h.size(); ++i) h[i] = silu(gate[i]) * up[i];
  return h;
}

Values rms_norm(const Values& x_TD, const Values& weight_D, double eps) {
  const std::size_t D = weight_D.size();
  Values y_TD(x_TD.size());
  for (std::size_t row = 0; row < x_TD.size(); row += D) {
    double squares = 0;
    for (std::size_t d = 0; d < D; ++d) squares += x_TD[row + d] * x_TD[row + d];
    for (std::size_t d = 0; d < D; ++d)
      y_TD[row + d] = x_TD[row + d] / std::sqrt(squares / static_cast<double>(D) + eps) * weight_D[d];
  }
  return y_TD;
}

Values rope(const Values& head_C, double position, double theta, double factor) {
  const std::size_t half = head_C.size() / 2;
  Values rotated(head_C);
  for (std::size_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_C.size());
    const double angle = position / factor * std::pow(theta, exponent);
    const double a = head_C[i], b = head_C[i + half];
    rotated[i] = a * std::cos(angle) - b * std::sin(angle);
    rotated[i + half] = b * std::cos(angle) + a * std::sin(angle);
  }
  return rotated;
}

Values softmax(const Values& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  Values p(scores.size());
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = std::exp(scores[i] - largest);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

Values attention(const Values& q_TnC, const Values& k_SmC, const Values& v_SmC, int T, int n, int m, int C) {
  const int S = static_cast<int>(k_SmC.size()) / (m * C);
  Values out_TnC(q_TnC.size(), 0.0);
  for (int t = 0; t < T; ++t)
    for (int head = 0; head < n; ++head) {
      const int kv_head = head / (n / m);
      const double* q = q_TnC.data() + (t * n + head) * C;
      double* out = out_TnC.data() + (t * n + head) * C;
      Values scores(S - T + t + 1);
      for (std::size_t s = 0; s < scores.size(); ++s)
        scores[s] = std::inner_product(q, q + C, k_SmC.data() + (s * m + kv_head) * C, 0.0) / std::sqrt(C);
      const Values p = softmax(scores);
      for (std::size_t s = 0; s < p.size(); ++s)
        for (int c = 0; c < C; ++c) out[c] += p[s] * v_SmC[(s * m + kv_head) * C + c];
    }
  return out_TnC;
}

namespace {

double read_element(KvType type, const std::byte* elements, std::size_t i) {
  if (type == KvType::kF32) return reinterpret_cast<const float*>(elements)[i];
  if (type == KvType::kBF16) return to_float(reinterpret_cast<const BF16*>(elements)[i]);
  return reinterpret_cast<const std::int8_t*>(elements)[i];
}

}  // namespace

StoredKv read_kv(const KvShape& shape, const std::byte* layer_kv, const std::vector<std::int32_t>& blocks, int S) {
  const int m = shape.kv_heads, C = shape.head_dim;
  StoredKv kv{Values(S * m * C), Values(S * m * C)};
  for (int s = 0; s < S; ++s)
    for (int head = 0; head < m; ++head) {
      const std::byte* block = layer_kv + blocks[s / 16] * shape.block_bytes() + head * shape.head_bytes();
      const std::byte* elements = block;
      double k_scale = 1, v_scale = 1;
      if (shape.type == KvType::kInt8) {
        k_scale = reinterpret_cast<const float*>(block)[s % 16];
        v_scale = reinterpret_cast<const float*>(block)[16 + s % 16];
        elements += 2 * 16 * sizeof(float);
      }
      for (int c = 0; c < C; ++c) {
        const int at = (s * m + head) * C + c;
        std::size_t k = 16 * c + s % 16, v = 16 * C + s % 16 * shape.padded_dim() + c;
        if (shape.type == KvType::kBF16) {  // [C/2][16][2], then [Cp/16][8][16][2]
          k = (c / 2 * 16 + s % 16) * 2 + c % 2;
          v = 16 * (C + C % 2) + ((c / 16 * 8 + s % 16 / 2) * 16 + c % 16) * 2 + s % 2;
        }
        kv.k_SmC[at] = k_scale * read_element(shape.type, elements, k);
        kv.v_SmC[at] = v_scale * read_element(shape.type, elements, v);
      }
    }
  return kv;
}

Values combine(const Values& rows_KD, const Values& weights_K, int D) {
  Values y_D(D, 0.0);
  for (std::size_t j = 0; j < weights_K.size(); ++j)
    for (int d = 0; d < D; ++d) y_D[d] += weights_K[j] * rows_KD[j * D + d];
  return y_D;
}

}  // namespace foe::ref
