// A model's logits and states in double, from the published formulas: RMSNorm (Zhang and Sennrich 2019), RoPE (Su et
// al. 2021), grouped-query attention (Ainslie et al. 2023), windows (Beltagy et al. 2020), soft-caps (Gemma 2, 2024),
// sinks (gpt-oss, 2025), SwiGLU (Shazeer 2020), experts (Shazeer et al. 2017) and their federation (arXiv 2605.06206).
// Every token has all experts, so that a rounding cannot change which are selected.
//
// T tokens, D model width, N query heads, M KV heads, C width of a query or key, W of a value.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "weights/tensor_folder.h"

namespace foe {

inline constexpr double kUnitRoundoff = 0x1.0p-24;  // of f32

// A number, and the standard deviation of what f32 makes of it. Roundings are taken as independent, each of at most a
// unit roundoff of its result, and a chain of n of them as sqrt(n) unit roundoffs of all terms' magnitudes (Higham and
// Mary 2019). Formulas pass deviations on to first order.
struct Number {
  double value = 0;
  double variance = 0;
};
using Vector = std::vector<Number>;
using Matrix = std::vector<Vector>;  // row by row

inline double square(double x) {
  return x * x;
}
// The number rounded once more, and so many roundings of `magnitude`.
inline Number rounded(Number x, double roundings = 1) {
  return {x.value, x.variance + roundings * square(kUnitRoundoff * x.value)};
}
inline Number operator+(const Number& a, const Number& b) {
  return rounded({a.value + b.value, a.variance + b.variance});
}
inline Number operator*(const Number& a, const Number& b) {
  return rounded({a.value * b.value, square(a.value) * b.variance + square(b.value) * a.variance});
}
inline Vector operator+(Vector a, const Vector& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = a[i] + b[i];
  return a;
}
inline Matrix operator+(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = a[i] + b[i];
  return a;
}

// sum_i a_i b_i
inline Number dot(const Number* a, const Number* b, int n) {
  Number sum;
  double magnitude = 0;
  for (int i = 0; i < n; ++i) {
    sum.value += a[i].value * b[i].value;
    sum.variance += square(a[i].value) * b[i].variance + square(b[i].value) * a[i].variance;
    magnitude += std::abs(a[i].value * b[i].value);
  }
  sum.variance += n * square(kUnitRoundoff * magnitude);
  return sum;
}

// sum_i p_i y_i, where p_i = e^z_i / sum_j e^z_j. The logit `sink` takes part in the sum over j, and has no y.
inline Number softmax_mean(Vector z, const Vector& y, double sink = -std::numeric_limits<double>::infinity()) {
  double largest = sink, smallest = z[0].value;
  for (const Number& x : z) largest = std::max(largest, x.value), smallest = std::min(smallest, x.value);
  double total = std::exp(sink - largest), magnitude = 0;
  for (const Number& x : z) total += std::exp(x.value - largest);
  Number mean;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double p = std::exp(z[i].value - largest) / total;
    mean.value += p * y[i].value;
    mean.variance += square(p) * y[i].variance;
    magnitude += p * std::abs(y[i].value);
  }
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double p = std::exp(z[i].value - largest) / total;
    // The exponent is a rounded difference, and its exponential within 2 ulp, twice where spans are merged.
    const double variance = z[i].variance + square(kUnitRoundoff) * (square(largest - smallest) + 32);
    mean.variance += square(p * (y[i].value - mean.value)) * variance;
  }
  mean.variance += (static_cast<double>(z.size()) + 8) * square(kUnitRoundoff * magnitude);
  return mean;
}

inline Vector rms_norm(const Vector& x, const Number* weight, double eps) {
  const double n = static_cast<double>(x.size());
  double squares = 0, variance = 0;
  for (const Number& v : x) squares += square(v.value), variance += square(v.value) * v.variance;
  const double r = 1 / std::sqrt(squares / n + eps);
  const Number inverse{r, square(r * r * r / n) * variance + square(kUnitRoundoff * r) * (n + 4)};
  Vector y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * inverse * weight[i];
  return y;
}

// Rotates the first `width` numbers of a head: in pairs of i and i + width / 2 or, interleaved, of 2i and 2i + 1.
inline void rotate(Number* head, int width, bool interleaved, double position, double theta) {
  for (int i = 0; i < width / 2; ++i) {
    const double angle = position * std::pow(theta, -2.0 * i / width);
    const Number cosine = rounded({std::cos(angle)}), sine = rounded({std::sin(angle)});
    Number &a = head[interleaved ? 2 * i : i], &b = head[interleaved ? 2 * i + 1 : i + width / 2];
    const Number x = a, y = b;
    a = x * cosine + Number{-1} * (y * sine);
    b = y * cosine + x * sine;
  }
}

class ReferenceModel {
 public:
  ReferenceModel(const std::string& model_dir, const ModelConfig& config) : folder_(model_dir), c_(config) {}

  Matrix logits(const std::vector<std::int32_t>& tokens) const {
    return multiply(states(tokens), c_.tie_word_embeddings ? "model.embed_tokens" : "lm_head", 0, c_.vocab_size);
  }

  // What the logits are made of.
  Matrix states(const std::vector<std::int32_t>& tokens) const {
    const int groups = c_.federated() ? c_.expert_groups : 1;
    const Number scale{c_.sync_scale()};
    const Matrix none(tokens.size(), Vector(c_.hidden_size));
    Matrix r = embed(tokens);
    std::vector<Matrix> update(groups, none);  // M_h
    const auto add_scaled = [&](const Matrix& sum, const Number& by) {
      for (std::size_t t = 0; t < r.size(); ++t)
        for (std::size_t i = 0; i < r[t].size(); ++i) r[t][i] = r[t][i] + by * sum[t][i];
    };
    const auto sum_of_updates = [&] {
      Matrix sum = none;
      for (const Matrix& m : update) sum = sum + m;
      return sum;
    };
    for (int l = 0; l < c_.num_layers(); ++l) {
      Matrix sum = sum_of_updates();
      for (int g = 0; g < groups; ++g)
        sum = sum + attention(l, g, groups, normed(r + update[g], prefix(l) + "input_layernorm"));
      add_scaled(sum, l > 0 ? scale : Number{1});
      const Matrix x = normed(r, prefix(l) + "post_attention_layernorm");
      for (int g = 0; g < groups; ++g) update[g] = experts(l, g, groups, x);
      if (c_.federated()) continue;
      r = r + update[0];
      update[0] = none;
    }
    add_scaled(sum_of_updates(), scale);
    return normed(r, "model.norm");
  }

 private:
  static std::string prefix(int layer) { return "model.layers." + std::to_string(layer) + "."; }

  Vector tensor(const std::string& name) const {
    const Tensor stored = *folder_.find(name);
    std::vector<float> floats(stored.size());
    read_floats(stored, 0, floats);
    Vector values;
    for (const float x : floats) values.push_back({x});
    return values;
  }

  Matrix embed(const std::vector<std::int32_t>& tokens) const {
    const Vector all = tensor("model.embed_tokens.weight");
    Matrix rows;
    for (const std::int32_t token : tokens)
      rows.push_back({all.begin() + token * c_.hidden_size, all.begin() + (token + 1) * c_.hidden_size});
    return rows;
  }

  Matrix normed(Matrix x, const std::string& name) const {
    const Vector weight = tensor(name + ".weight");
    for (Vector& row : x) row = rms_norm(row, weight.data(), c_.rms_norm_eps);
    return x;
  }

  // The product with `rows` rows of a matrix, of whose columns the first is `column`.
  Matrix multiply(const Matrix& x, const std::string& name, int row, int rows, int column = 0,
                  bool bias = false) const {
    const Vector w = tensor(name + ".weight"), b = bias ? tensor(name + ".bias") : Vector();
    const int columns = static_cast<int>(folder_.find(name + ".weight")->shape[1]);
    Matrix y(x.size(), Vector(rows));
    for (std::size_t t = 0; t < x.size(); ++t)
      for (int i = 0; i < rows; ++i) {
        y[t][i] = dot(x[t].data(), w.data() + (row + i) * columns + column, static_cast<int>(x[t].size()));
        if (bias) y[t][i] = y[t][i] + b[row + i];
      }
    return y;
  }

  // Normalises x [heads * width] over each head, or over all of them.
  Vector normed_heads(const Vector& x, int width, int heads, const std::string& name, int first) const {
    const bool full = c_.heads().qk_norm == QkNorm::kFull;
    const Vector weight = tensor(name + ".weight");
    if (full) return rms_norm(x, weight.data() + first * width, c_.rms_norm_eps);
    Vector y;
    for (int h = 0; h < heads; ++h) {
      const Vector head =
          rms_norm({x.begin() + h * width, x.begin() + (h + 1) * width}, weight.data(), c_.rms_norm_eps);
      y.insert(y.end(), head.begin(), head.end());
    }
    return y;
  }

  // The attention of the heads of a group, up to and including the output projection.
  Matrix attention(int l, int group, int groups, const Matrix& x) const {
    const AttentionConfig& a = c_.attention(l);
    const int M = a.kv_heads / groups, N = a.query_heads / groups, C = a.key_width;
    const int W = a.value_width > 0 ? a.value_width : C;
    const std::string p = prefix(l) + "self_attn.";
    Matrix q = multiply(x, p + "q_proj", group * N * C, N * C, 0, a.qkv_bias);
    Matrix k = multiply(x, p + "k_proj", group * M * C, M * C, 0, a.qkv_bias);
    const Matrix v = multiply(x, p + "v_proj", group * M * W, M * W, 0, a.qkv_bias);
    const auto width = static_cast<int>(C * a.rotary_share);
    const auto norm = [&](std::size_t t) {
      if (a.qk_norm == QkNorm::kNone) return;
      q[t] = normed_heads(q[t], C, N, p + "q_norm", group * N);
      k[t] = normed_heads(k[t], C, M, p + "k_norm", group * M);
    };
    for (std::size_t t = 0; t < x.size(); ++t) {
      if (!a.norm_after_rope) norm(t);
      const double position = static_cast<double>(t) / a.rope_factor;
      for (int h = 0; h < N; ++h) rotate(q[t].data() + h * C, width, a.interleaved, position, a.rope_theta);
      for (int h = 0; h < M; ++h) rotate(k[t].data() + h * C, width, a.interleaved, position, a.rope_theta);
      if (a.norm_after_rope) norm(t);
    }
    const Vector sinks = a.sinks ? tensor(p + "sinks") : Vector();
    Matrix attended(x.size(), Vector(N * W));
    for (int t = 0; t < static_cast<int>(x.size()); ++t)
      for (int h = 0; h < N; ++h) {
        const double sink = a.sinks ? sinks[group * N + h].value : -std::numeric_limits<double>::infinity();
        attend(a, q[t].data() + h * C, k, v, t, h / (N / M), sink, attended[t].data() + h * W);
      }
    return multiply(attended, p + "o_proj", 0, c_.hidden_size, group * N * W, a.output_bias);
  }

  // The attention of one query of token t over the keys and values of a head.
  static void attend(const AttentionConfig& a, const Number* q, const Matrix& k, const Matrix& v, int t, int kv_head,
                     double sink, Number* out) {
    const int C = a.key_width, W = a.value_width > 0 ? a.value_width : C;
    const int first = a.window > 0 ? std::max(0, t - a.window + 1) : 0;
    Vector scores;
    for (int j = first; j <= t; ++j) {
      const Number scale = rounded({a.scale > 0 ? a.scale : 1 / std::sqrt(C)}, 2);
      Number score = dot(q, k[j].data() + kv_head * C, C) * scale;
      if (a.softcap > 0) {
        const double tangent = std::tanh(score.value / a.softcap);  // within 4 ulp, of a rounded argument
        score = rounded({a.softcap * tangent, square(1 - square(tangent)) * score.variance}, 80);
      }
      scores.push_back(score);
    }
    Vector values(scores.size());
    for (int c = 0; c < W; ++c) {
      for (int j = first; j <= t; ++j) values[j - first] = v[j][kv_head * W + c];
      out[c] = softmax_mean(scores, values, sink);
    }
  }

  // The sum of a group's experts, which every token has all.
  Matrix experts(int l, int group, int groups, const Matrix& x) const {
    const ExpertsConfig& e = c_.experts(l);
    const std::string p = prefix(l) + "mlp.";
    if (e.dense()) return network(p, e, x);
    const Matrix scores = multiply(x, p + "gate", 0, e.count, 0, e.router->bias);
    std::vector<Matrix> outputs(e.count, Matrix(x.size(), Vector(c_.hidden_size)));  // zero for other groups' experts
    for (int i = group * e.count / groups; i < (group + 1) * e.count / groups; ++i)
      outputs[i] = network(p + "experts." + std::to_string(i) + ".", e, x);
    Matrix sum = outputs[0];
    Vector of_experts(e.count);
    for (std::size_t t = 0; t < x.size(); ++t)
      for (int d = 0; d < c_.hidden_size; ++d) {
        for (int i = 0; i < e.count; ++i) of_experts[i] = outputs[i][t][d];
        sum[t][d] = softmax_mean(scores[t], of_experts);
      }
    return sum;
  }

  Matrix network(const std::string& p, const ExpertsConfig& e, const Matrix& x) const {
    const Matrix gate = multiply(x, p + "gate_proj", 0, e.width, 0, e.bias);
    const Matrix up = multiply(x, p + "up_proj", 0, e.width, 0, e.bias);
    const double most = e.gate.limit > 0 ? e.gate.limit : std::numeric_limits<double>::infinity();
    Matrix hidden = gate;
    for (std::size_t t = 0; t < x.size(); ++t)
      for (int i = 0; i < e.width; ++i) {
        // What is clipped is taken to be as uncertain as before: it is no more than that.
        const double z = std::min(gate[t][i].value, most), az = e.gate.alpha * z, sigmoid = 1 / (1 + std::exp(-az));
        const double slope = sigmoid * (1 + az * (1 - sigmoid));
        const Number u{std::clamp(up[t][i].value, -most, most), up[t][i].variance};
        hidden[t][i] = rounded({z * sigmoid, square(slope) * gate[t][i].variance}, 32) * (u + Number{e.gate.up_offset});
      }
    return multiply(hidden, p + "down_proj", 0, c_.hidden_size, 0, e.bias);
  }

  TensorFolder folder_;
  ModelConfig c_;
};

}  // namespace foe
