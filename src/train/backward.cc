#include <algorithm>

#include "train/distillation.h"
#include "train/inputs.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Backward through r = ... + c * sum over h of M_h: writes the gradients of M_h. In an ordinary model, r has M.
template <typename T>
void begin_updates_backward(const Model<T>& model, Activations<T>& a) {
  const std::size_t n = product(a.span.tokens(), model.layout.dims.hidden);
  const T scale = static_cast<T>(model.layout.config.sync_scale());
  for (int s = 0; s < model.layout.dims.streams; ++s)
    for (std::size_t i = 0; i < n; ++i) a.d_moe_STD[s * n + i] = scale * a.d_residual_TD[i];
}

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
  begin_updates_backward(model, a);
}

// A norm before a block.
template <typename T>
struct Norm {
  LayerInput<T> in;
  std::size_t weight;  // where it is in the parameters
  const T* scale_ST;   // its inverse RMS
};

// Backward through the norm of one stream, whose gradient is d_norm_TD: adds to the gradients of r and, unless it is
// null, of M_h, which the stream reads, too.
template <typename T>
void norm_backward(const Model<T>& model, const Norm<T>& norm, int stream, const T* d_norm_TD, Activations<T>& a,
                   T* d_residual_TD, T* d_moe_TD, T* gradients) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden;
  const int tokens = a.span.tokens();
  for (int t = 0; t < tokens; ++t) {
    T* d_residual = d_residual_TD + t * hidden;
    T* d_row = d_moe_TD ? a.d_row_D.data() : d_residual;
    if (d_moe_TD) std::fill_n(d_row, hidden, T{0});
    rms_norm_row_backward(norm.in.row(stream, t, tokens, d.hidden, a.row_D.data()), model.params + norm.weight,
                          norm.scale_ST[product(stream, tokens) + t], d_norm_TD + t * hidden, d.hidden, d_row,
                          gradients + norm.weight);
    if (!d_moe_TD) continue;
    add_to(d_residual, d_row, hidden);
    add_to(d_moe_TD + t * hidden, d_row, hidden);
  }
}

// Backward through M_h = sum of w_e FFN_e(norm(r)): takes d_moe_STD, and adds to the gradient of r. That of the r that
// attention reads, too, is d_parallel_TD, until attention has taken d_residual_TD. Where groups do not sync, backward
// through M_h += sum of w_e FFN_e(norm(r + M_h)): adds to d_moe_STD, too.
template <typename T>
void experts_half_backward(const Model<T>& model, int layer, const RouterLosses& losses, Activations<T>& a,
                           T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerOffsets& at = layout.layers[layer];
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens(), rows = expert_rows(layout.config, layer, tokens);
  const std::size_t hidden = d.hidden, experts = d.experts, n = tokens * hidden;
  const BlockConfig& block = layout.config.experts_block(layer);

  const T* d_added_STD = a.d_moe_STD.data();
  if (block.residual_factor != 1) {
    for (std::size_t i = 0; i < d.streams * n; ++i)
      a.d_added_STD[i] = static_cast<T>(block.residual_factor) * a.d_moe_STD[i];
    d_added_STD = a.d_added_STD.data();
  }
  experts_backward(d, rows, model.weights.precision, weights, at, act.routing, act.norm2_TD.data(),
                   act.gate_up_R2F.data(), d_added_STD, a.d_norm_TD.data(), a.d_weight_TK.data(), gradients, a.experts,
                   a.products);
  route_backward(layout.config, rows, act.routing, a.d_weight_TK.data(), losses, a.d_scores_TE.data());
  multiply_transposed<T>(DType::kF32, rows, {a.d_scores_TE.data(), experts}, d.experts, {act.norm2_TD.data(), hidden},
                         d.hidden, {gradients + at.router, hidden}, Into::kAdd, a.products);
  multiply_packed<T>(rows, {a.d_scores_TE.data(), experts}, weights.router.backward, {a.d_norm_TD.data(), hidden},
                     Into::kAdd, a.products);
  const Norm<T> norm{experts_input(layout.config, a, layer), at.post_norm, act.norm2_scale_T.data()};
  T* d_read_TD = block.parallel ? a.d_parallel_TD.data() : a.d_residual_TD.data();
  if (block.parallel) std::fill_n(d_read_TD, n, T{0});
  if (layout.config.syncs(layer))
    return norm_backward<T>(model, norm, 0, a.d_norm_TD.data(), a, d_read_TD, nullptr, gradients);
  for (int s = 0; s < d.streams; ++s)
    norm_backward(model, norm, s, a.d_norm_TD.data() + s * n, a, d_read_TD, a.d_moe_STD.data() + s * n, gradients);
}

// Adds the gradients of one stream's rows of q, k and v, which are computed in one product.
template <typename T>
void qkv_weight_backward(const Model<T>& model, int layer, int stream, const T* norm_TD, Activations<T>& a,
                         T* gradients) {
  const Dims& d = model.layout.dims;
  const LayerOffsets& at = model.layout.layers[layer];
  const std::size_t hidden = d.hidden;
  multiply_transposed<T>(model.weights.precision, a.span.tokens(),
                         {a.d_qkv_TW.data() + stream * d.stream_qkv(), static_cast<std::size_t>(d.qkv)}, d.stream_qkv(),
                         {norm_TD, hidden}, d.hidden, {a.d_qkv_weight.data(), hidden}, Into::kOverwrite, a.products);
  const std::size_t q_size = product(d.stream_heads(), d.head_dim, d.hidden);
  const std::size_t k_size = product(d.stream_kv_heads(), d.head_dim, d.hidden);
  add_to(gradients + at.q + stream * q_size, a.d_qkv_weight.data(), q_size);
  add_to(gradients + at.k + stream * k_size, a.d_qkv_weight.data() + q_size, k_size);
  add_to(gradients + at.v + stream * k_size, a.d_qkv_weight.data() + q_size + k_size, k_size);
}

// Writes the gradients of what attention adds: to r, the same for all streams, or where groups do not sync to each M_h.
// Then d_moe_STD becomes the gradient of the M_h of the layer below, as far as attention does not read it.
template <typename T>
void attention_sum_backward(const Model<T>& model, int layer, Activations<T>& a) {
  const ModelConfig& config = model.layout.config;
  const std::size_t n = product(a.span.tokens(), model.layout.dims.hidden);
  const T factor = static_cast<T>(config.attention_block(layer).residual_factor);
  if (!config.syncs(layer)) {
    for (std::size_t i = 0; i < model.layout.dims.streams * n; ++i) a.d_attention_STD[i] = factor * a.d_moe_STD[i];
    return;
  }
  const T scale = summed_updates(config, a, layer) ? static_cast<T>(config.sync_scale()) : T{1};
  for (std::size_t i = 0; i < n; ++i) a.d_attention_STD[i] = scale * factor * a.d_residual_TD[i];
  if (input_of(config, a, layer).updates_STD) begin_updates_backward(model, a);
}

// Backward through r = r_prev + c * sum over h of (M_h + Attn_h(norm(r_prev + M_h))): d_residual_TD becomes the
// gradient of r_prev, and d_moe_STD that of the M_h of the layer below.
template <typename T>
void attention_half_backward(const Model<T>& model, int layer, Activations<T>& a, T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = layout.dims;
  const LayerOffsets& at = layout.layers[layer];
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const std::size_t hidden = d.hidden, n = tokens * hidden, heads = product(d.heads, d.head_dim), qkv = d.qkv;

  const LayerInput<T> in = input_of(layout.config, a, layer);
  attention_sum_backward(model, layer, a);

  const std::size_t columns = product(d.stream_heads(), d.head_dim);
  for (int s = 0; s < d.streams; ++s) {
    const T* d_attention = a.d_attention_STD.data() + (layout.config.syncs(layer) ? 0 : s * n);
    multiply_transposed<T>(model.weights.precision, tokens, {d_attention, hidden}, d.hidden,
                           {act.o_TNC.data() + s * columns, heads}, d.stream_heads() * d.head_dim,
                           {gradients + at.o + s * columns * hidden, columns}, Into::kAdd, a.products);
    multiply_packed<T>(tokens, {d_attention, hidden}, weights.o_backward[s], {a.d_o_TNC.data() + s * columns, heads},
                       Into::kOverwrite, a.products);
  }
  attention_backward(d, a.span, model.weights.precision, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(),
                     a.d_o_TNC.data(), a.d_qkv_TW.data(), a.attention, a.products);
  qk_backward(layout.config, a.span, a.rope, model.params + at.q_norm, model.params + at.k_norm, act.raw_TW.data(),
              act.qk_scale_TU.data(), a.d_qkv_TW.data(), gradients + at.q_norm, gradients + at.k_norm);
  const Norm<T> norm{in, at.input_norm, act.norm1_scale_ST.data()};
  T* d_norm = a.d_norm_TD.data();
  // Where all streams read the same norm, their gradients are added before they go through it.
  for (int s = 0; s < d.streams; ++s) {
    qkv_weight_backward(model, layer, s, act.norm1_STD.data() + (in.read_STD ? s * n : 0), a, gradients);
    multiply_packed<T>(tokens, {a.d_qkv_TW.data() + s * d.stream_qkv(), qkv}, weights.qkv[s].backward, {d_norm, hidden},
                       !in.read_STD && s > 0 ? Into::kAdd : Into::kOverwrite, a.products);
    if (in.read_STD)
      norm_backward(model, norm, s, d_norm, a, a.d_residual_TD.data(), a.d_moe_STD.data() + s * n, gradients);
  }
  if (!in.read_STD) norm_backward<T>(model, norm, 0, d_norm, a, a.d_residual_TD.data(), nullptr, gradients);
}

// Adds the gradient of what parallel experts have read: r and, in an ordinary model, what the layer below adds to it.
template <typename T>
void add_parallel_gradient(const Model<T>& model, int layer, Activations<T>& a) {
  const std::size_t n = product(a.span.tokens(), model.layout.dims.hidden);
  add_to(a.d_residual_TD.data(), a.d_parallel_TD.data(), n);
  if (input_of(model.layout.config, a, layer).read_STD) add_to(a.d_moe_STD.data(), a.d_parallel_TD.data(), n);
}

template <typename T>
void layer_backward(const Model<T>& model, int layer, const RouterLosses& losses, Activations<T>& a, T* gradients) {
  const ModelConfig& config = model.layout.config;
  const bool parallel = config.experts_block(layer).parallel;
  if (parallel && config.federated()) begin_updates_backward(model, a);
  experts_half_backward(model, layer, losses, a, gradients);
  attention_half_backward(model, layer, a, gradients);
  if (parallel) add_parallel_gradient(model, layer, a);
}

// The logits of some rows, which are as far apart as those of the model in training: the vocabularies are the same.
template <typename T>
T* logits_of_teacher(Distillation<T>& distillation, int t, int rows) {
  Activations<T>& a = distillation.activations;
  const std::size_t hidden = distillation.teacher.layout.dims.hidden;
  multiply_packed<T>(rows, {a.norm_TD.data() + t * hidden, hidden}, distillation.teacher.weights.head.forward,
                     {a.logits.data(), a.logit_stride}, Into::kOverwrite, a.products);
  return a.logits.data();
}

}  // namespace

template <typename T>
double head_backward(const Model<T>& model, std::span<const std::int32_t> targets, T scale, Activations<T>& a,
                     T* gradients, Distillation<T>* distillation) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, stride = a.logit_stride;
  double nats = 0;
  for (int t = 0; t < a.span.tokens(); t += kHeadRows) {
    const int rows = std::min(kHeadRows, a.span.tokens() - t);
    const Rows<const T> x{a.norm_TD.data() + t * hidden, hidden};
    multiply_packed<T>(rows, x, model.weights.head.forward, {a.logits.data(), stride}, Into::kOverwrite, a.products);
    T* teacher_logits = distillation ? logits_of_teacher(*distillation, t, rows) : nullptr;
    for (int i = 0; i < rows; ++i) {
      T* logits = a.logits.data() + i * stride;
      if (targets[t + i] < 0)
        std::fill_n(logits, d.vocab, T{0});
      else if (distillation)
        nats += distilled_row_backward(logits, teacher_logits + i * stride, targets[t + i], scale, *distillation);
      else
        nats += cross_entropy_row_backward(logits, d.vocab, targets[t + i], scale);
    }
    multiply_packed<T>(rows, {a.logits.data(), stride}, model.weights.head.backward,
                       {a.d_norm_TD.data() + t * hidden, hidden}, Into::kOverwrite, a.products);
    multiply_transposed<T>(model.weights.precision, rows, {a.logits.data(), stride}, d.vocab, x, d.hidden,
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
    layer_backward(model, l, per_layer, a, gradients);
    completed(Stages::of_layer(l, d.layers));
  }
  for (int t = 0; t < a.span.tokens(); ++t)
    add_to(gradients + model.layout.embedding + product(tokens[t], d.hidden),
           a.d_residual_TD.data() + product(t, d.hidden), d.hidden);
  completed(Stages::of_embedding(d.layers));
}

#define FOE_INSTANTIATE(T)                                                                                         \
  template double head_backward(const Model<T>&, std::span<const std::int32_t>, T, Activations<T>&, T*,            \
                                Distillation<T>*);                                                                 \
  template void backward(const Model<T>&, std::span<const std::int32_t>, const RouterLosses&, Activations<T>&, T*, \
                         const std::function<void(int)>&);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
