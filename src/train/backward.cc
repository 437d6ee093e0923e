#include <algorithm>

#include "train/block_sum.h"
#include "train/distillation.h"
#include "train/inputs.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Backward through r = ... + c * sum over h of M_h: writes the gradients of M_h. In an ordinary model, r has M.
template <typename T>
void begin_updates_backward(const Model<T>& model, Activations<T>& a) {
  const std::size_t n = product(a.span.tokens(), a.dims.hidden);
  const T scale = static_cast<T>(model.layout.config.sync_scale());
  for (int s = 0; s < a.dims.streams; ++s)
    for (std::size_t i = 0; i < n; ++i) a.d_moe_STD[s * n + i] = scale * a.d_residual_TD[i];
}

// Backward through the end: x = r + c * sum over h of M_h, and the final norm.
template <typename T>
void end_backward(const Model<T>& model, Activations<T>& a, T* gradients) {
  const Layout& layout = model.layout;
  const std::size_t hidden = a.dims.hidden, n = a.span.tokens() * hidden;
  if (a.owns_ends()) {
    std::fill_n(a.d_residual_TD.data(), n, T{0});
    for (int t = 0; t < a.span.tokens(); ++t)
      rms_norm_row_backward(a.end_TD.data() + t * hidden, model.params + layout.final_norm, a.norm_scale_T[t],
                            a.d_norm_STD.data() + t * hidden, a.dims.hidden, a.d_residual_TD.data() + t * hidden,
                            gradients + layout.final_norm);
  }
  spread_from_owner(a, a.d_residual_TD.data(), n);
  begin_updates_backward(model, a);
  std::fill_n(a.d_read_STD.data(), a.d_read_STD.size(), T{0});
}

// The gradient of the r that a stream's attention and experts read: where there are several streams, what this one adds
// to it, until finish_reads() adds that of all.
template <typename T>
T* read_gradient(Activations<T>& a, int stream) {
  if (a.dims.all_streams == 1) return a.d_residual_TD.data();
  return a.d_read_STD.data() + product(stream, a.span.tokens(), a.dims.hidden);
}

// To be called when all that reads an r has added to its gradient: completes d_residual_TD.
template <typename T>
void finish_reads(Activations<T>& a, SumAt where) {
  if (a.dims.all_streams == 1) return;
  add_block_sum(a, 1, T{1}, where, a.d_residual_TD.data(), [&](int s, int t, int rows, T* term) {
    T* read = read_gradient(a, s) + product(t, a.dims.hidden);
    std::copy_n(read, product(rows, a.dims.hidden), term);
    std::fill_n(read, product(rows, a.dims.hidden), T{0});
  });
}

// The gradient of something that the streams of a layer have in common: where there are several, what this one adds to
// it, until finish_common() adds that of all.
template <typename T>
T* common_gradient(Activations<T>& a, T* gradients, std::size_t offset, std::size_t in_common, int stream) {
  if (a.dims.all_streams == 1) return gradients + offset;
  return a.d_common.data() + stream * a.common.size + in_common;
}

template <typename T>
void add_common(const Model<T>& model, int layer, const CommonLayout& c, const T* sums, T* gradients) {
  const LayerOffsets& at = model.layout.layers[layer];
  add_to(gradients + at.input_norm, sums + c.input_norm, c.norm_size);
  add_to(gradients + at.post_norm, sums + c.post_norm, c.norm_size);
  add_to(gradients + at.q_norm, sums + c.q_norm, c.head_norm_size);
  add_to(gradients + at.k_norm, sums + c.k_norm, c.head_norm_size);
  if (!model.layout.config.syncs(layer)) add_to(gradients + at.router, sums + c.router, c.router_size);
}

// To be called at the end of a layer. With peers, finish_common_of_peers() completes the gradients.
template <typename T>
void finish_common(const Model<T>& model, int layer, Activations<T>& a, T* gradients) {
  if (a.dims.all_streams == 1) return;
  const std::size_t size = a.common.size;
  a.block_sum.add(a.d_common.data(), size, size);
  if (!a.peers) add_common(model, layer, a.common, a.d_common.data(), gradients);
  for (int i = 0; a.peers && i < a.block_sum.partials(); ++i)
    std::copy_n(a.d_common.data() + a.block_sum.place(i) * size, size,
                a.d_common_partials.data() + (product(i, a.dims.layers) + layer) * size);
  std::fill_n(a.d_common.data(), a.d_common.size(), T{0});
}

template <typename T>
void finish_common_of_peers(const Model<T>& model, Activations<T>& a, T* gradients) {
  if (!a.peers) return;
  sum_over_peers(a, SumAt::kAllRanks, a.d_common_partials.data(), a.dims.layers * a.common.size);
  for (int l = 0; l < a.dims.layers; ++l)
    add_common(model, l, a.common, a.d_common_partials.data() + l * a.common.size, gradients);
}

// A norm before a block.
template <typename T>
struct Norm {
  LayerInput<T> in;
  std::size_t weight;     // where it is in the parameters
  std::size_t in_common;  // and where its gradient is in CommonLayout
  const T* scale_ST;      // its inverse RMS
};

// Backward through the norm of one stream, whose gradient is d_norm_TD: adds to the gradients of r and, unless it is
// null, of M_h, which the stream reads, too.
template <typename T>
void norm_backward(const Model<T>& model, const Norm<T>& norm, int stream, const T* d_norm_TD, Activations<T>& a,
                   T* d_residual_TD, T* d_moe_TD, T* gradients) {
  const std::size_t hidden = a.dims.hidden;
  const int tokens = a.span.tokens();
  const int normed = norm.in.read_STD ? stream : 0;  // streams that read the same have one norm
  T* d_weight = common_gradient(a, gradients, norm.weight, norm.in_common, stream);
  for (int t = 0; t < tokens; ++t) {
    T* d_residual = d_residual_TD + t * hidden;
    T* d_row = d_moe_TD ? a.d_row_D.data() : d_residual;
    if (d_moe_TD) std::fill_n(d_row, hidden, T{0});
    rms_norm_row_backward(norm.in.row(normed, t, tokens, a.dims.hidden, a.row_D.data()), model.params + norm.weight,
                          norm.scale_ST[product(normed, tokens) + t], d_norm_TD + t * hidden, a.dims.hidden, d_row,
                          d_weight);
    if (!d_moe_TD) continue;
    add_to(d_residual, d_row, hidden);
    add_to(d_moe_TD + t * hidden, d_row, hidden);
  }
}

// Each rank has the gradients of its experts' weights, and the softmax of a router those of all.
template <typename T>
void gather_weight_gradients(const Routing<T>& routing, Activations<T>& a) {
  const Dims& d = a.dims;
  const std::size_t slots = product(a.span.tokens(), d.top_k);
  const std::vector<int>& begin = a.peers->plan().begin();
  const auto rank_of = [&](std::size_t slot) {
    const int stream = routing.expert_TK[slot] / d.stream_experts();
    return static_cast<int>(std::upper_bound(begin.begin(), begin.end(), stream) - begin.begin()) - 1;
  };
  std::vector<T> own, all(slots);
  std::vector<std::size_t> next(begin.size());  // where the gradients of each rank begin
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const int rank = rank_of(slot);
    ++next[rank + 1];
    if (rank == a.peers->rank()) own.push_back(a.d_weight_TK[slot]);
  }
  for (std::size_t r = 1; r < next.size(); ++r) next[r] += next[r - 1];
  a.peers->gather(std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(all)));
  for (std::size_t slot = 0; slot < slots; ++slot) a.d_weight_TK[slot] = all[next[rank_of(slot)]++];
}

// Backward through the scores of one stream's experts or, where groups route, through those that the stream has
// computed of all experts: adds to the gradients of the router and of the norm's output.
template <typename T>
void scores_backward(const Model<T>& model, int layer, int stream, Activations<T>& a, T* gradients) {
  const Dims& d = a.dims;
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const bool routes = !model.layout.config.syncs(layer);
  const Range scored = routes ? Range{0, d.experts} : d.experts_of(stream);
  const std::size_t hidden = d.hidden, experts = d.experts, n = tokens * hidden;
  const Rows<const T> d_scores{a.d_scores_TE.data() + (routes ? product(stream, tokens, d.experts) : 0) + scored.begin,
                               experts};
  const std::size_t router = model.layout.layers[layer].router;
  T* d_router = routes ? common_gradient(a, gradients, router, a.common.router, stream) : gradients + router;
  multiply_transposed<T>(DType::kF32, tokens, d_scores, scored.size(),
                         {act.norm2_TD.data() + (routes ? stream * n : 0), hidden}, d.hidden,
                         {d_router + scored.begin * hidden, hidden}, Into::kAdd, a.products);
  const Panels<T>& weights = model.weights.layers[layer].router.backward.panels;
  const Panels<T> rows(weights.data + scored.begin * 16, scored.size(), weights.width, weights.panel_stride);
  multiply_packed<T>(tokens, d_scores, rows, {a.d_norm_STD.data() + stream * n, hidden}, Into::kAdd);
}

// Backward through M_h = sum of w_e FFN_e(norm(r)): takes d_moe_STD, and adds to the gradient of r. That of the r that
// attention reads, too, is d_parallel_TD in a model with one stream, until attention has taken d_residual_TD. Where
// groups do not sync, backward through M_h += sum of w_e FFN_e(norm(r + M_h)): adds to d_moe_STD, too.
template <typename T>
void experts_half_backward(const Model<T>& model, int layer, const RouterLosses& losses, Activations<T>& a,
                           T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = a.dims;
  const LayerOffsets& at = layout.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const bool syncs = layout.config.syncs(layer);
  const int tokens = a.span.tokens(), rows = expert_rows(layout.config, d, layer, tokens);
  const std::size_t hidden = d.hidden, n = tokens * hidden;
  const BlockConfig& block = layout.config.experts_block(layer);

  const T* d_added_STD = a.d_moe_STD.data();
  if (block.residual_factor != 1) {
    for (std::size_t i = 0; i < d.streams * n; ++i)
      a.d_added_STD[i] = static_cast<T>(block.residual_factor) * a.d_moe_STD[i];
    d_added_STD = a.d_added_STD.data();
  }
  experts_backward(d, rows, model.weights.precision, model.weights.layers[layer], at, act.routing, act.norm2_TD.data(),
                   act.gate_up_R2F.data(), d_added_STD, a.d_norm_STD.data(), a.d_weight_TK.data(), gradients, a.experts,
                   a.products);
  if (a.peers && syncs) gather_weight_gradients(act.routing, a);
  route_backward(layout.config, d, rows, act.routing, a.d_weight_TK.data(), losses, a.d_scores_TE.data());
  const Norm<T> norm{experts_input(layout.config, a, layer), at.post_norm, a.common.post_norm,
                     act.norm2_scale_T.data()};
  const bool apart = block.parallel && d.all_streams == 1;
  if (apart) std::fill_n(a.d_parallel_TD.data(), n, T{0});
  for (int s = 0; s < d.streams; ++s) {
    scores_backward(model, layer, s, a, gradients);
    norm_backward(model, norm, s, a.d_norm_STD.data() + s * n, a, apart ? a.d_parallel_TD.data() : read_gradient(a, s),
                  syncs ? nullptr : a.d_moe_STD.data() + s * n, gradients);
  }
}

// Adds the gradients of one stream's rows of q, k and v, which are computed in one product.
template <typename T>
void qkv_weight_backward(const Model<T>& model, int layer, int stream, const T* norm_TD, Activations<T>& a,
                         T* gradients) {
  const Dims& d = a.dims;
  const LayerOffsets& at = model.layout.layers[layer];
  const std::size_t hidden = d.hidden, place = d.first_stream + stream;
  multiply_transposed<T>(model.weights.precision, a.span.tokens(),
                         {a.d_qkv_TW.data() + stream * d.stream_qkv(), static_cast<std::size_t>(d.qkv)}, d.stream_qkv(),
                         {norm_TD, hidden}, d.hidden, {a.d_qkv_weight.data(), hidden}, Into::kOverwrite, a.products);
  const std::size_t q_size = product(d.stream_heads(), d.head_dim, d.hidden);
  const std::size_t k_size = product(d.stream_kv_heads(), d.head_dim, d.hidden);
  add_to(gradients + at.q + place * q_size, a.d_qkv_weight.data(), q_size);
  add_to(gradients + at.k + place * k_size, a.d_qkv_weight.data() + q_size, k_size);
  add_to(gradients + at.v + place * k_size, a.d_qkv_weight.data() + q_size + k_size, k_size);
}

// Writes the gradients of what attention adds: to r, the same for all streams, or where groups do not sync to each M_h.
// Then d_moe_STD becomes the gradient of the M_h of the layer below, as far as attention does not read it.
template <typename T>
void attention_sum_backward(const Model<T>& model, int layer, Activations<T>& a) {
  const ModelConfig& config = model.layout.config;
  const std::size_t n = product(a.span.tokens(), a.dims.hidden);
  const T factor = static_cast<T>(config.attention_block(layer).residual_factor);
  if (!config.syncs(layer)) {
    for (std::size_t i = 0; i < a.dims.streams * n; ++i) a.d_attention_STD[i] = factor * a.d_moe_STD[i];
    return;
  }
  const T scale = summed_updates(config, a, layer) ? static_cast<T>(config.sync_scale()) : T{1};
  for (std::size_t i = 0; i < n; ++i) a.d_attention_STD[i] = scale * factor * a.d_residual_TD[i];
  if (input_of(config, a, layer).updates_STD) begin_updates_backward(model, a);
}

// Backward through queries, keys and values, from their gradient d_qkv_TW to the inputs of attention.
template <typename T>
void qkv_backward(const Model<T>& model, int layer, Activations<T>& a, T* gradients) {
  const Dims& d = a.dims;
  const LayerOffsets& at = model.layout.layers[layer];
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const std::size_t hidden = d.hidden, n = tokens * hidden, qkv = d.qkv;
  const LayerInput<T> in = input_of(model.layout.config, a, layer);
  const bool of_heads = a.common.head_norm_size > 0;
  qk_backward(model.layout.config, d, a.span, a.rope, model.params + at.q_norm, model.params + at.k_norm,
              act.raw_TW.data(), act.qk_scale_TU.data(), a.d_qkv_TW.data(),
              of_heads ? common_gradient(a, gradients, at.q_norm, a.common.q_norm, 0) : gradients + at.q_norm,
              of_heads ? common_gradient(a, gradients, at.k_norm, a.common.k_norm, 0) : gradients + at.k_norm,
              of_heads && d.all_streams > 1 ? a.common.size : 0);
  const Norm<T> norm{in, at.input_norm, a.common.input_norm, act.norm1_scale_ST.data()};
  T* d_norm_TD = a.d_norm_STD.data();
  for (int s = 0; s < d.streams; ++s) {
    qkv_weight_backward(model, layer, s, act.norm1_STD.data() + (in.read_STD ? s * n : 0), a, gradients);
    multiply_packed<T>(tokens, {a.d_qkv_TW.data() + s * d.stream_qkv(), qkv},
                       model.weights.layers[layer].qkv[s].backward, {d_norm_TD, hidden}, Into::kOverwrite, a.products);
    norm_backward(model, norm, s, d_norm_TD, a, read_gradient(a, s), in.read_STD ? a.d_moe_STD.data() + s * n : nullptr,
                  gradients);
  }
}

// Backward through r = r_prev + c * sum over h of (M_h + Attn_h(norm(r_prev + M_h))): adds to the gradient of r_prev,
// and d_moe_STD becomes that of the M_h of the layer below.
template <typename T>
void attention_half_backward(const Model<T>& model, int layer, Activations<T>& a, T* gradients) {
  const Layout& layout = model.layout;
  const Dims& d = a.dims;
  const LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const std::size_t hidden = d.hidden, n = tokens * hidden, heads = product(d.heads, d.head_dim);
  attention_sum_backward(model, layer, a);

  const std::size_t columns = product(d.stream_heads(), d.head_dim);
  for (int s = 0; s < d.streams; ++s) {
    const T* d_attention = a.d_attention_STD.data() + (layout.config.syncs(layer) ? 0 : s * n);
    multiply_transposed<T>(model.weights.precision, tokens, {d_attention, hidden}, d.hidden,
                           {act.o_TNC.data() + s * columns, heads}, d.stream_heads() * d.head_dim,
                           {gradients + layout.layers[layer].o + (d.first_stream + s) * columns * hidden, columns},
                           Into::kAdd, a.products);
    multiply_packed<T>(tokens, {d_attention, hidden}, model.weights.layers[layer].o_backward[s],
                       {a.d_o_TNC.data() + s * columns, heads}, Into::kOverwrite, a.products);
  }
  attention_backward(d, a.span, model.weights.precision, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(),
                     a.d_o_TNC.data(), a.d_qkv_TW.data(), a.attention, a.products);
  qkv_backward(model, layer, a, gradients);
}

// Adds the gradient of what parallel experts have read: r and, in an ordinary model, what the layer below adds to it.
template <typename T>
void add_parallel_gradient(const Model<T>& model, int layer, Activations<T>& a) {
  const std::size_t n = product(a.span.tokens(), a.dims.hidden);
  add_to(a.d_residual_TD.data(), a.d_parallel_TD.data(), n);
  if (input_of(model.layout.config, a, layer).read_STD) add_to(a.d_moe_STD.data(), a.d_parallel_TD.data(), n);
}

// The sum over groups of the gradient of r comes where the layer's own sum was: what has read r since is the layer
// above and, unless they are parallel, the layer's experts.
template <typename T>
void layer_backward(const Model<T>& model, int layer, const RouterLosses& losses, Activations<T>& a, T* gradients) {
  const ModelConfig& config = model.layout.config;
  const bool parallel = config.experts_block(layer).parallel, several = a.dims.all_streams > 1;
  if (parallel && several) {
    finish_reads(a, SumAt::kAllRanks);
    begin_updates_backward(model, a);
  }
  experts_half_backward(model, layer, losses, a, gradients);
  if (!parallel && config.syncs(layer)) finish_reads(a, SumAt::kAllRanks);
  attention_half_backward(model, layer, a, gradients);
  if (parallel && !several) add_parallel_gradient(model, layer, a);
  finish_common(model, layer, a, gradients);
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
                       {a.d_norm_STD.data() + t * hidden, hidden}, Into::kOverwrite, a.products);
    multiply_transposed<T>(model.weights.precision, rows, {a.logits.data(), stride}, d.vocab, x, d.hidden,
                           {gradients + model.layout.head, hidden}, Into::kAdd, a.products);
  }
  return nats;
}

template <typename T>
void backward(const Model<T>& model, std::span<const std::int32_t> tokens, const RouterLosses& router,
              Activations<T>& a, T* gradients, const std::function<void(int)>& completed) {
  const int layers = a.dims.layers;
  const std::size_t hidden = a.dims.hidden;
  const RouterLosses per_layer{router.balance / layers, router.z / layers};
  end_backward(model, a, gradients);
  completed(0);
  for (int l = layers - 1; l >= 0; --l) {
    layer_backward(model, l, per_layer, a, gradients);
    completed(Stages::of_layer(l, layers));
  }
  finish_reads(a, SumAt::kOwner);
  finish_common_of_peers(model, a, gradients);
  if (a.owns_ends())
    for (int t = 0; t < a.span.tokens(); ++t)
      add_to(gradients + model.layout.embedding + tokens[t] * hidden, a.d_residual_TD.data() + t * hidden, hidden);
  completed(Stages::of_embedding(layers));
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
