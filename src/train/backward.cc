#include <algorithm>

#include "train/model.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Backward through the end: x = r + c * sum over h of M_h, and the final norm.
template <typename T>
void end_backward(const Model<T>& model, Activations<T>& a, T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const std::size_t hidden = d.hidden, n = a.span.tokens() * hidden;
  std::fill_n(a.d_residual_TD.data(), n, T{0});
  for (int t = 0; t < a.span.tokens(); ++t)
    rms_norm_row_backward(a.end_TD.data() + t * hidden, model.params + layout.final_norm, a.norm_scale_T[t],
                          a.d_norm_TD.data() + t * hidden, d.hidden, a.d_residual_TD.data() + t * hidden,
                          gradients + layout.final_norm);
  const T scale = static_cast<T>(layout.config.sync_scale());
  for (int s = 0; s < d.streams; ++s)
    for (std::size_t i = 0; i < n; ++i) a.d_moe_STD[s * n + i] = scale * a.d_residual_TD[i];
}

// Backward through M_h = sum of w_e FFN_e(norm(r)): takes d_moe_STD, and adds to d_residual_TD.
template <typename T>
void experts_half_backward(const Model<T>& model, int layer, const RouterLosses& losses, Activations<T>& a,
                           T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerOffsets& at = layout.layers[layer];
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const std::size_t hidden = d.hidden, experts = d.experts;

  experts_backward(d, tokens, weights, at, act.routing, act.norm2_TD.data(), act.gate_up_R2F.data(), a.d_moe_STD.data(),
                   a.d_norm_TD.data(), a.d_weight_TK.data(), gradients, a.experts, a.products);
  route_backward(layout.config, tokens, act.routing, a.d_weight_TK.data(), losses, a.d_scores_TE.data());
  multiply_transposed<T>(tokens, {a.d_scores_TE.data(), experts}, d.experts, {act.norm2_TD.data(), hidden}, d.hidden,
                         {gradients + at.router, hidden}, Into::kAdd, a.products);
  multiply_packed<T>(tokens, {a.d_scores_TE.data(), experts}, weights.router.backward, {a.d_norm_TD.data(), hidden},
                     Into::kAdd);
  for (int t = 0; t < tokens; ++t)
    rms_norm_row_backward(act.residual_TD.data() + t * hidden, model.params + at.post_norm, act.norm2_scale_T[t],
                          a.d_norm_TD.data() + t * hidden, d.hidden, a.d_residual_TD.data() + t * hidden,
                          gradients + at.post_norm);
}

// Adds the gradients of one stream's rows of q, k and v, which are computed in one product.
template <typename T>
void qkv_weight_backward(const Model<T>& model, int layer, int stream, const T* norm_TD, Activations<T>& a,
                         T* gradients) {
  const Dims& d = model.layout.dims;
  const LayerOffsets& at = model.layout.layers[layer];
  const std::size_t hidden = d.hidden;
  multiply_transposed<T>(a.span.tokens(),
                         {a.d_qkv_TW.data() + stream * d.stream_qkv(), static_cast<std::size_t>(d.qkv)}, d.stream_qkv(),
                         {norm_TD, hidden}, d.hidden, {a.d_qkv_weight.data(), hidden}, Into::kOverwrite, a.products);
  const std::size_t q_size = product(d.stream_heads(), d.head_dim, d.hidden);
  const std::size_t k_size = product(d.stream_kv_heads(), d.head_dim, d.hidden);
  add_to(gradients + at.q + stream * q_size, a.d_qkv_weight.data(), q_size);
  add_to(gradients + at.k + stream * k_size, a.d_qkv_weight.data() + q_size, k_size);
  add_to(gradients + at.v + stream * k_size, a.d_qkv_weight.data() + q_size + k_size, k_size);
}

// Backward through norm(r_prev + M_h) of one stream: the gradient in d_norm_TD goes to both r_prev and M_h. In the
// first layer there is only x.
template <typename T>
void stream_norm_backward(const Model<T>& model, int layer, int stream, Activations<T>& a, T* gradients) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, norm_at = model.layout.layers[layer].input_norm;
  const int tokens = a.span.tokens();
  const T* scale_T = a.layers[layer].norm1_scale_ST.data() + product(stream, tokens);
  for (int t = 0; t < tokens; ++t) {
    const T* d_norm = a.d_norm_TD.data() + t * hidden;
    T* d_residual = a.d_residual_TD.data() + t * hidden;
    if (layer == 0) {
      rms_norm_row_backward(a.embedded_TD.data() + t * hidden, model.params + norm_at, scale_T[t], d_norm, d.hidden,
                            d_residual, gradients + norm_at);
      continue;
    }
    const std::size_t stream_at = product(stream, tokens, d.hidden) + t * hidden;
    const T* r = a.layers[layer - 1].residual_TD.data() + t * hidden;
    const T* m = a.layers[layer - 1].moe_STD.data() + stream_at;
    for (int i = 0; i < d.hidden; ++i) a.row_D[i] = r[i] + m[i];
    std::fill_n(a.d_row_D.data(), hidden, T{0});
    rms_norm_row_backward(a.row_D.data(), model.params + norm_at, scale_T[t], d_norm, d.hidden, a.d_row_D.data(),
                          gradients + norm_at);
    add_to(d_residual, a.d_row_D.data(), hidden);
    add_to(a.d_moe_STD.data() + stream_at, a.d_row_D.data(), hidden);
  }
}

// Backward through r = r_prev + c * sum over h of (M_h + Attn_h(norm(r_prev + M_h))): d_residual_TD becomes the
// gradient of r_prev, and d_moe_STD that of the M_h of the layer before.
template <typename T>
void attention_half_backward(const Model<T>& model, int layer, Activations<T>& a, T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerOffsets& at = layout.layers[layer];
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const std::size_t hidden = d.hidden, n = tokens * hidden, heads = product(d.heads, d.head_dim), qkv = d.qkv;

  const T scale = layer == 0 ? T{1} : static_cast<T>(layout.config.sync_scale());
  T* d_attention = a.d_attention_TD.data();
  for (std::size_t i = 0; i < n; ++i) d_attention[i] = scale * a.d_residual_TD[i];
  if (layer > 0)
    for (int s = 0; s < d.streams; ++s) std::copy_n(d_attention, n, a.d_moe_STD.data() + s * n);

  const std::size_t columns = product(d.stream_heads(), d.head_dim);
  for (int s = 0; s < d.streams; ++s) {
    multiply_transposed<T>(tokens, {d_attention, hidden}, d.hidden, {act.o_TNC.data() + s * columns, heads},
                           d.stream_heads() * d.head_dim, {gradients + at.o + s * columns * hidden, columns},
                           Into::kAdd, a.products);
    multiply_packed<T>(tokens, {d_attention, hidden}, weights.o[s].backward, {a.d_o_TNC.data() + s * columns, heads},
                       Into::kOverwrite);
  }
  attention_backward(d, a.span, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(), a.d_o_TNC.data(),
                     a.d_qkv_TW.data(), a.attention, a.products);
  qk_backward(layout.config, a.span, a.rope, model.params + at.q_norm, model.params + at.k_norm, act.raw_TW.data(),
              act.qk_scale_TU.data(), a.d_qkv_TW.data(), gradients + at.q_norm, gradients + at.k_norm);
  // In the first layer all streams read the same norm, so their gradients are added before they go through it.
  for (int s = 0; s < d.streams; ++s) {
    qkv_weight_backward(model, layer, s, act.norm1_STD.data() + (layer == 0 ? 0 : s * n), a, gradients);
    multiply_packed<T>(tokens, {a.d_qkv_TW.data() + s * d.stream_qkv(), qkv}, weights.qkv[s].backward,
                       {a.d_norm_TD.data(), hidden}, layer == 0 && s > 0 ? Into::kAdd : Into::kOverwrite);
    if (layer > 0) stream_norm_backward(model, layer, s, a, gradients);
  }
  if (layer == 0) stream_norm_backward(model, layer, 0, a, gradients);
}

}  // namespace

template <typename T>
double head_backward(const Model<T>& model, std::span<const std::int32_t> targets, T scale, Activations<T>& a,
                     T* gradients) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, stride = a.logit_stride;
  double nats = 0;
  for (int t = 0; t < a.span.tokens(); t += kHeadRows) {
    const int rows = std::min(kHeadRows, a.span.tokens() - t);
    const Rows<const T> x{a.norm_TD.data() + t * hidden, hidden};
    multiply_packed<T>(rows, x, model.weights.head.forward, {a.logits.data(), stride}, Into::kOverwrite);
    for (int i = 0; i < rows; ++i) {
      T* logits = a.logits.data() + i * stride;
      if (targets[t + i] < 0)
        std::fill_n(logits, d.vocab, T{0});
      else
        nats += cross_entropy_row_backward(logits, d.vocab, targets[t + i], scale);
    }
    multiply_packed<T>(rows, {a.logits.data(), stride}, model.weights.head.backward,
                       {a.d_norm_TD.data() + t * hidden, hidden}, Into::kOverwrite);
    multiply_transposed<T>(rows, {a.logits.data(), stride}, d.vocab, x, d.hidden,
                           {gradients + model.layout.head, hidden}, Into::kAdd, a.products);
  }
  return nats;
}

template <typename T>
void backward(const Model<T>& model, std::span<const std::int32_t> tokens, const RouterLosses& router,
              Activations<T>& a, T* gradients, const std::function<void(int)>& completed) {
  const Dims& d = model.layout.dims;
  const RouterLosses per_layer{router.balance / d.layers, router.z / d.layers};
  end_backward(model, a, gradients);
  completed(0);
  for (int l = d.layers - 1; l >= 0; --l) {
    experts_half_backward(model, l, per_layer, a, gradients);
    attention_half_backward(model, l, a, gradients);
    completed(Stages::of_layer(l, d.layers));
  }
  for (int t = 0; t < a.span.tokens(); ++t)
    add_to(gradients + model.layout.embedding + product(tokens[t], d.hidden),
           a.d_residual_TD.data() + product(t, d.hidden), d.hidden);
  completed(Stages::of_embedding(d.layers));
}

#define FOE_INSTANTIATE(T)                                                                                         \
  template double head_backward(const Model<T>&, std::span<const std::int32_t>, T, Activations<T>&, T*);           \
  template void backward(const Model<T>&, std::span<const std::int32_t>, const RouterLosses&, Activations<T>&, T*, \
                         const std::function<void(int)>&);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
