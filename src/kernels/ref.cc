#include "kernels/ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
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

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu2:
      return x > 0 ? x * x : 0;
  }
  return x;
}

Values gated(const Values& gate, const Values& up, Activation activation, const GateShape& shape) {
  Values h(gate.size());
  for (std::size_t i = 0; i < h.size(); ++i) {
    const double most = shape.limit > 0 ? shape.limit : std::numeric_limits<double>::infinity();
    const double g = std::min(gate[i], most), u = std::clamp(up[i], -most, most) + shape.up_offset;
    h[i] = (shape.alpha == 1 ? activate(activation, g) : g / (1 + std::exp(-shape.alpha * g))) * u;
  }
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

Values rope(const Values& head_C, double position, double theta, double factor, int width, bool interleaved) {
  Values rotated(head_C);
  for (int i = 0; i < width / 2; ++i) {
    const double angle = position / factor * std::pow(theta, -2.0 * i / width);
    const int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + width / 2;
    const double a = head_C[first], b = head_C[second];
    rotated[first] = a * std::cos(angle) - b * std::sin(angle);
    rotated[second] = b * std::cos(angle) + a * std::sin(angle);
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

Values scores(const AttentionParams& params, const double* q_C, const Values& k_SmC, int keys, int m, int kv_head,
              int C) {
  const double scale = params.scale == 0 ? 1 / std::sqrt(C) : params.scale, cap = params.softcap;
  Values scores(keys);
  for (int s = 0; s < keys; ++s) {
    const double* k_C = k_SmC.data() + (s * m + kv_head) * C;
    const double score = std::inner_product(q_C, q_C + C, k_C, 0.0) * scale;
    const bool hidden = params.window > 0 && s <= keys - 1 - params.window;
    scores[s] = hidden ? -std::numeric_limits<double>::infinity() : cap > 0 ? cap * std::tanh(score / cap) : score;
  }
  return scores;
}

Values attention(const AttentionParams& params, const Values& q_TnC, const Values& k_SmC, const Values& v_SmW, int T,
                 int n, int m, int C, int W) {
  const int S = static_cast<int>(k_SmC.size()) / (m * C);
  Values out_TnW(static_cast<std::size_t>(T) * n * W, 0.0);
  for (int t = 0; t < T; ++t)
    for (int head = 0; head < n; ++head) {
      const int kv_head = head / (n / m);
      const double* q = q_TnC.data() + (t * n + head) * C;
      double* out = out_TnW.data() + (t * n + head) * W;
      const int keys = S - T + t + 1;
      Values row = scores(params, q, k_SmC, keys, m, kv_head, C);
      if (!params.sinks_n.empty()) row.push_back(params.sinks_n[head]);
      const Values p = softmax(row);  // a sink has no value
      for (int s = 0; s < keys; ++s)
        for (int c = 0; c < W; ++c) out[c] += p[s] * v_SmW[(s * m + kv_head) * W + c];
    }
  return out_TnW;
}

namespace {

double read_element(KvType type, const std::byte* elements, std::size_t i) {
  if (type == KvType::kF32) return reinterpret_cast<const float*>(elements)[i];
  if (type == KvType::kBF16) return to_float(reinterpret_cast<const BF16*>(elements)[i]);
  return reinterpret_cast<const std::int8_t*>(elements)[i];
}

}  // namespace

StoredKv read_kv(const KvShape& shape, const std::byte* layer_kv, const std::vector<std::int32_t>& blocks, int S) {
  const int m = shape.kv_heads, C = shape.key_width, W = shape.value_width;
  StoredKv kv{Values(S * m * C), Values(S * m * W)};
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
      const bool paired = shape.type == KvType::kBF16;  // [C/2][16][2], then [Wp/16][8][16][2]
      for (int c = 0; c < C; ++c) {
        const std::size_t k = paired ? (c / 2 * 16 + s % 16) * 2 + c % 2 : 16 * c + s % 16;
        kv.k_SmC[(s * m + head) * C + c] = k_scale * read_element(shape.type, elements, k);
      }
      for (int c = 0; c < W; ++c) {
        const std::size_t v = paired ? 16 * (C + C % 2) + ((c / 16 * 8 + s % 16 / 2) * 16 + c % 16) * 2 + s % 2
                                     : 16 * C + s % 16 * shape.padded_values() + c;
        kv.v_SmW[(s * m + head) * W + c] = v_scale * read_element(shape.type, elements, v);
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
