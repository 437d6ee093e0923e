#include <algorithm>

#include "base/check.h"
#include "base/huge_pages.h"
#include "core/sum_blocks.h"
#include "train/model.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// What a layer reads: r of the layer before, and M_h of that layer's experts (null in the first layer).
template <typename T>
struct LayerInput {
  const T* residual_TD;
  const T* moe_STD;
};

template <typename T>
LayerInput<T> input_of(const Activations<T>& a, int layer) {
  if (layer == 0) return {a.embedded_TD.data(), nullptr};
  return {a.layers[layer - 1].residual_TD.data(), a.layers[layer - 1].moe_STD.data()};
}

// Computes norm(r_prev + M_h) for every stream or, in the first layer, norm(x) once.
template <typename T>
void norm_streams(const Model<T>& model, int layer, Activations<T>& a) {
  const int hidden = model.layout.dims.hidden, tokens = a.span.tokens();
  const LayerInput<T> in = input_of(a, layer);
  LayerActivations<T>& act = a.layers[layer];
  const T* weight = model.params + model.layout.layers[layer].input_norm;
  const T eps = static_cast<T>(model.layout.config.rms_norm_eps);
  for (int s = 0; s < (in.moe_STD ? model.layout.dims.streams : 1); ++s)
    for (int t = 0; t < tokens; ++t) {
      const std::size_t at = product(t, hidden), stream_at = product(s, tokens, hidden) + at;
      const T* x = in.residual_TD + at;
      if (in.moe_STD) {
        for (int i = 0; i < hidden; ++i) a.row_D[i] = x[i] + in.moe_STD[stream_at + i];
        x = a.row_D.data();
      }
      act.norm1_scale_ST[product(s, tokens) + t] =
          rms_norm_row(x, weight, eps, hidden, act.norm1_STD.data() + stream_at);
    }
}

// y_TD = x, the residual that a layer or the head reads. In an ordinary model it has the experts' sum already.
template <typename T>
void copy_residual(const ModelConfig& config, const LayerInput<T>& in, std::size_t n, T* y_TD) {
  std::copy_n(in.residual_TD, n, y_TD);
  if (in.moe_STD && !config.federated()) add_to(y_TD, in.moe_STD, n);
}

// The rows [first, first + depth) of a matrix in panels.
template <typename T>
Panels<T> rows_of(const Panels<T>& matrix, int first, int depth) {
  return {matrix.data + first * std::size_t{16}, depth, matrix.width, matrix.panel_stride};
}

// y_TD += c * sum over blocks of heads of their output projections. In a federated model a block is a stream, and M_h
// is part of its term.
template <typename T>
void add_attention(const Model<T>& model, int layer, Activations<T>& a, T* y_TD) {
  const ModelConfig& config = model.layout.config;
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, heads = product(d.heads, d.head_dim), stride = kTermRows * hidden;
  const std::vector<Linear<T>>& o = model.weights.layers[layer].o;
  const T* moe_STD = config.federated() ? input_of(a, layer).moe_STD : nullptr;
  const T scale = moe_STD ? static_cast<T>(config.sync_scale()) : T{1};
  const int tokens = a.span.tokens();
  for (int t = 0; t < tokens; t += kTermRows) {
    const int rows = std::min(kTermRows, tokens - t);
    for (int b = 0; b < a.block_sum.terms(); ++b) {
      const int column = a.block_begin[b], columns = a.block_begin[b + 1] - column;
      T* term = a.terms.data() + b * stride;
      multiply_packed<T>(rows, {a.layers[layer].o_TNC.data() + t * heads + column, heads},
                         config.federated() ? o[b].forward : rows_of(o[0].forward, column, columns), {term, hidden},
                         Into::kOverwrite);
      if (moe_STD) add_to(term, moe_STD + product(b, tokens, d.hidden) + t * hidden, rows * hidden);
    }
    a.block_sum.add(a.terms.data(), stride, rows * hidden);
    add_scaled(y_TD + t * hidden, a.terms.data(), scale, rows * hidden);
  }
}

// The end: y_TD += c * sum over h of M_h
template <typename T>
void add_last_updates(const Model<T>& model, Activations<T>& a, T* y_TD) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, stride = kTermRows * hidden;
  const int tokens = a.span.tokens();
  const T* moe_STD = input_of(a, d.layers).moe_STD;
  for (int t = 0; t < tokens; t += kTermRows) {
    const std::size_t n = std::min(kTermRows, tokens - t) * hidden;
    for (int s = 0; s < d.streams; ++s)
      std::copy_n(moe_STD + product(s, tokens, d.hidden) + t * hidden, n, a.terms.data() + s * stride);
    a.stream_sum.add(a.terms.data(), stride, n);
    add_scaled(y_TD + t * hidden, a.terms.data(), static_cast<T>(model.layout.config.sync_scale()), n);
  }
}

// r = r_prev + c * sum over h of (M_h + Attn_h(norm(r_prev + M_h)))
template <typename T>
void attention_half(const Model<T>& model, int layer, Activations<T>& a) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerOffsets& at = layout.layers[layer];
  LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const auto hidden = static_cast<std::size_t>(d.hidden), qkv = static_cast<std::size_t>(d.qkv);

  norm_streams(model, layer, a);
  for (int s = 0; s < d.streams; ++s) {
    const T* norm = act.norm1_STD.data() + (layer == 0 ? 0 : product(s, tokens, d.hidden));
    multiply_packed<T>(tokens, {norm, hidden}, weights.qkv[s].forward, {act.qkv_TW.data() + s * d.stream_qkv(), qkv},
                       Into::kOverwrite);
  }
  qk_forward(layout.config, a.span, a.rope, model.params + at.q_norm, model.params + at.k_norm, act.qkv_TW.data(),
             act.raw_TW.data(), act.qk_scale_TU.data());
  attention_forward(d, a.span, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(), a.attention);
  copy_residual(layout.config, input_of(a, layer), tokens * hidden, act.residual_TD.data());
  add_attention(model, layer, a, act.residual_TD.data());
}

// M_h = sum over the chosen experts of group h of w_e FFN_e(norm(r))
template <typename T>
RouterLosses experts_half(const Model<T>& model, int layer, const Route* forced, Activations<T>& a) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerWeights<T>& weights = model.weights.layers[layer];
  LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const auto hidden = static_cast<std::size_t>(d.hidden), experts = static_cast<std::size_t>(d.experts);
  for (int t = 0; t < tokens; ++t)
    act.norm2_scale_T[t] =
        rms_norm_row(act.residual_TD.data() + t * hidden, model.params + layout.layers[layer].post_norm,
                     static_cast<T>(layout.config.rms_norm_eps), d.hidden, act.norm2_TD.data() + t * hidden);
  multiply_packed<T>(tokens, {act.norm2_TD.data(), hidden}, weights.router.forward,
                     {act.routing.share_TE.data(), experts}, Into::kOverwrite);
  const RouterLosses losses = route(layout.config, layer, tokens, forced, act.routing);
  experts_forward(layout.config, tokens, weights, act.routing, act.norm2_TD.data(), act.gate_up_R2F.data(),
                  act.moe_STD.data(), a.experts);
  return losses;
}

}  // namespace

template <typename T>
LayerActivations<T>::LayerActivations(const ModelConfig& config, int tokens) : routing(Dims(config), tokens) {
  const Dims d(config);
  const int units = qk_norm_units(config);
  norm1_STD = large_buffer<T>(product(d.streams, tokens, d.hidden));
  norm1_scale_ST = large_buffer<T>(product(d.streams, tokens));
  qkv_TW = large_buffer<T>(product(tokens, d.qkv));
  raw_TW = large_buffer<T>(units ? product(tokens, d.qkv) : 0);
  qk_scale_TU = large_buffer<T>(product(tokens, units));
  o_TNC = large_buffer<T>(product(tokens, d.heads, d.head_dim));
  log_sum_TN = large_buffer<T>(product(tokens, d.heads));
  residual_TD = large_buffer<T>(product(tokens, d.hidden));
  norm2_TD = large_buffer<T>(product(tokens, d.hidden));
  norm2_scale_T = AlignedBuffer<T>(tokens);
  gate_up_R2F = large_buffer<T>(product(tokens, d.top_k, 2 * d.width));
  moe_STD = large_buffer<T>(product(d.streams, tokens, d.hidden));
}

template <typename T>
Activations<T>::Activations(const Layout& layout, int sequences, int length)
    : max_sequences(sequences),
      max_length(length),
      rope(layout.config, length),
      block_sum(head_blocks(layout.config).count()),
      stream_sum(layout.dims.streams),
      block_begin(head_blocks(layout.config).begin),
      attention(layout.dims, sequences, length),
      experts(layout.dims, sequences * length) {
  const Dims& d = layout.dims;
  for (int& begin : block_begin) begin *= d.heads / d.kv_heads * d.head_dim;
  terms = AlignedBuffer<T>(product(block_sum.terms(), kTermRows, d.hidden));
  const int tokens = sequences * length;
  for (int l = 0; l < d.layers; ++l) layers.emplace_back(layout.config, tokens);
  for (AlignedBuffer<T>* buffer : {&embedded_TD, &end_TD, &norm_TD, &d_residual_TD, &d_norm_TD, &d_attention_TD})
    *buffer = large_buffer<T>(product(tokens, d.hidden));
  norm_scale_T = AlignedBuffer<T>(tokens);
  // Not a power of two, so that the rows of a tile are in different cache sets.
  logit_stride = (static_cast<std::size_t>(d.vocab) + 31) / 32 * 32 + 16;
  logits = large_buffer<T>(kHeadRows * logit_stride);
  d_moe_STD = large_buffer<T>(product(d.streams, tokens, d.hidden));
  d_qkv_TW = large_buffer<T>(product(tokens, d.qkv));
  d_o_TNC = large_buffer<T>(product(tokens, d.heads, d.head_dim));
  d_weight_TK = large_buffer<T>(product(tokens, d.top_k));
  d_scores_TE = large_buffer<T>(product(tokens, d.experts));
  d_qkv_weight = large_buffer<T>(product(d.stream_qkv(), d.hidden));
  row_D = AlignedBuffer<T>(d.hidden);
  d_row_D = AlignedBuffer<T>(d.hidden);
}

template <typename T>
RouterLosses forward(const Model<T>& model, std::span<const std::int32_t> tokens, Span span, Activations<T>& a,
                     const Route* forced) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  FOE_CHECK(span.sequences <= a.max_sequences && span.length <= a.max_length, "{} x {} in {} x {}", span.sequences,
            span.length, a.max_sequences, a.max_length);
  FOE_CHECK(tokens.size() == static_cast<std::size_t>(span.tokens()), "{} tokens, expected {}", tokens.size(),
            span.tokens());
  a.span = span;
  for (int t = 0; t < span.tokens(); ++t) {
    FOE_CHECK(tokens[t] >= 0 && tokens[t] < d.vocab, "token {} of {}", tokens[t], d.vocab);
    std::copy_n(model.params + layout.embedding + product(tokens[t], d.hidden), d.hidden,
                a.embedded_TD.data() + product(t, d.hidden));
  }
  RouterLosses losses;
  for (int l = 0; l < d.layers; ++l) {
    attention_half(model, l, a);
    const RouterLosses layer = experts_half(model, l, forced, a);
    losses.balance += layer.balance / d.layers;
    losses.z += layer.z / d.layers;
  }
  copy_residual(layout.config, input_of(a, d.layers), product(span.tokens(), d.hidden), a.end_TD.data());
  if (layout.config.federated()) add_last_updates(model, a, a.end_TD.data());
  for (int t = 0; t < span.tokens(); ++t)
    a.norm_scale_T[t] =
        rms_norm_row(a.end_TD.data() + product(t, d.hidden), model.params + layout.final_norm,
                     static_cast<T>(layout.config.rms_norm_eps), d.hidden, a.norm_TD.data() + product(t, d.hidden));
  return losses;
}

template <typename T>
double head_loss(const Model<T>& model, std::span<const std::int32_t> targets, Activations<T>& a) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, stride = a.logit_stride;
  double nats = 0;
  for (int t = 0; t < a.span.tokens(); t += kHeadRows) {
    const int rows = std::min(kHeadRows, a.span.tokens() - t);
    multiply_packed<T>(rows, {a.norm_TD.data() + t * hidden, hidden}, model.weights.head.forward,
                       {a.logits.data(), stride}, Into::kOverwrite);
    for (int i = 0; i < rows; ++i)
      if (targets[t + i] >= 0) nats += cross_entropy_row(a.logits.data() + i * stride, d.vocab, targets[t + i]);
  }
  return nats;
}

template <typename T>
void all_logits(const Model<T>& model, const Activations<T>& a, T* logits_TV) {
  const auto hidden = static_cast<std::size_t>(model.layout.dims.hidden);
  multiply_packed<T>(a.span.tokens(), {a.norm_TD.data(), hidden}, model.weights.head.forward,
                     {logits_TV, static_cast<std::size_t>(model.layout.dims.vocab)}, Into::kOverwrite);
}

#define FOE_INSTANTIATE(T)                                                                                            \
  template struct LayerActivations<T>;                                                                                \
  template struct Activations<T>;                                                                                     \
  template RouterLosses forward(const Model<T>&, std::span<const std::int32_t>, Span, Activations<T>&, const Route*); \
  template double head_loss(const Model<T>&, std::span<const std::int32_t>, Activations<T>&);                         \
  template void all_logits(const Model<T>&, const Activations<T>&, T*);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
