#include <algorithm>

#include "base/check.h"
#include "base/huge_pages.h"
#include "core/sum_blocks.h"
#include "train/block_sum.h"
#include "train/inputs.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Writes norm(r), or norm(r + M_h) for each of the streams that read their updates.
template <typename T>
void norm_streams(const Model<T>& model, const LayerInput<T>& in, std::size_t weight, Activations<T>& a, T* scale_ST,
                  T* y_STD) {
  const int hidden = a.dims.hidden, tokens = a.span.tokens();
  const T eps = static_cast<T>(model.layout.config.rms_norm_eps);
  for (int s = 0; s < (in.read_STD ? a.dims.streams : 1); ++s)
    for (int t = 0; t < tokens; ++t)
      scale_ST[product(s, tokens) + t] =
          rms_norm_row(in.row(s, t, tokens, hidden, a.row_D.data()), model.params + weight, eps, hidden,
                       y_STD + product(s, tokens, hidden) + product(t, hidden));
}

// y_TD = the residual that a layer or the head reads. In an ordinary model it has the experts' sum already.
template <typename T>
void copy_residual(const ModelConfig& config, const LayerInput<T>& in, std::size_t n, T* y_TD) {
  std::copy_n(in.residual_TD, n, y_TD);
  if (in.updates_STD && !config.federated()) add_to(y_TD, in.updates_STD, n);
}

// What some rows of a block of heads have attended to. In a federated model the block's factor is on it, since its
// output is in one sum with the updates.
template <typename T>
Rows<const T> attended_rows(const Model<T>& model, int layer, int t, int rows, int column, int columns,
                            Activations<T>& a) {
  const Dims& d = a.dims;
  const std::size_t heads = product(d.heads, d.head_dim), width = columns;
  const T* o = a.layers[layer].o_TNC.data() + t * heads + column;
  const double factor = model.layout.config.attention_block(layer).residual_factor;
  if (!model.layout.config.federated() || factor == 1) return {o, heads};
  for (int i = 0; i < rows; ++i) {
    std::copy_n(o + i * heads, width, a.scaled.data() + i * width);
    scale_all(a.scaled.data() + i * width, factor, width);
  }
  return {a.scaled.data(), width};
}

// y_TD += c * sum over blocks of heads of their output projections. In a federated model a block is a stream, and the
// update that is summed with it is part of its term.
template <typename T>
void add_attention(const Model<T>& model, int layer, Activations<T>& a, T* y_TD) {
  const ModelConfig& config = model.layout.config;
  const std::size_t hidden = a.dims.hidden;
  const T* updates_STD = config.federated() ? summed_updates(config, a, layer) : nullptr;
  const double factor = config.federated() ? 1 : config.attention_block(layer).residual_factor;
  const T scale = updates_STD ? static_cast<T>(config.sync_scale()) : T{1};
  add_block_sum(a, factor, scale, SumAt::kAllRanks, y_TD, [&](int b, int t, int rows, T* term) {
    const int column = a.block_begin[b], columns = a.block_begin[b + 1] - column;
    multiply_packed<T>(rows, attended_rows(model, layer, t, rows, column, columns, a),
                       model.weights.layers[layer].o_forward[b], {term, hidden}, Into::kOverwrite, a.products);
    if (updates_STD) add_to(term, updates_STD + (product(b, a.span.tokens()) + t) * hidden, rows * hidden);
  });
}

// Where groups do not sync: y_STD = M_h + Attn_h
template <typename T>
void add_attention_to_updates(const Model<T>& model, int layer, Activations<T>& a, T* y_STD) {
  const Dims& d = a.dims;
  const std::size_t hidden = d.hidden;
  const int tokens = a.span.tokens();
  const T* updates_STD = input_of(model.layout.config, a, layer).updates_STD;
  for (int s = 0; s < d.streams; ++s)
    for (int t = 0; t < tokens; t += kTermRows) {
      const int rows = std::min(kTermRows, tokens - t), column = a.block_begin[s];
      const std::size_t at = product(s, tokens, d.hidden) + t * hidden;
      multiply_packed<T>(rows, attended_rows(model, layer, t, rows, column, a.block_begin[s + 1] - column, a),
                         model.weights.layers[layer].o_forward[s], {y_STD + at, hidden}, Into::kOverwrite, a.products);
      add_to(y_STD + at, updates_STD + at, rows * hidden);
    }
}

// The end: y_TD += c * sum over h of M_h
template <typename T>
void add_last_updates(const Model<T>& model, Activations<T>& a, T* y_TD) {
  const std::size_t hidden = a.dims.hidden;
  const T* updates_STD = a.layers.back().moe_STD.data();
  const T scale = static_cast<T>(model.layout.config.sync_scale());
  add_block_sum(a, 1, scale, SumAt::kOwner, y_TD, [&](int s, int t, int rows, T* term) {
    std::copy_n(updates_STD + (product(s, a.span.tokens()) + t) * hidden, rows * hidden, term);
  });
}

// What all heads attend to: of norm(r), or in a federation of norm(r + M_h).
template <typename T>
void attend(const Model<T>& model, int layer, Activations<T>& a) {
  const Layout& layout = model.layout;
  const Dims& d = a.dims;
  const LayerWeights<T>& weights = model.weights.layers[layer];
  const LayerOffsets& at = layout.layers[layer];
  LayerActivations<T>& act = a.layers[layer];
  const int tokens = a.span.tokens();
  const auto hidden = static_cast<std::size_t>(d.hidden), qkv = static_cast<std::size_t>(d.qkv);
  const LayerInput<T> in = input_of(layout.config, a, layer);
  norm_streams(model, in, at.input_norm, a, act.norm1_scale_ST.data(), act.norm1_STD.data());
  for (int s = 0; s < d.streams; ++s) {
    const T* norm = act.norm1_STD.data() + (in.read_STD ? product(s, tokens, d.hidden) : 0);
    multiply_packed<T>(tokens, {norm, hidden}, weights.qkv[s].forward, {act.qkv_TW.data() + s * d.stream_qkv(), qkv},
                       Into::kOverwrite, a.products);
  }
  qk_forward(layout.config, d, a.span, a.rope, model.params + at.q_norm, model.params + at.k_norm, act.qkv_TW.data(),
             act.raw_TW.data(), act.qk_scale_TU.data());
  attention_forward(d, a.span, model.weights.precision, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(),
                    a.attention);
}

// r = r_prev + Attn or, in a federation, r_prev + c * sum over h of (M_h + Attn_h). Where groups do not sync, r stays.
template <typename T>
void add_to_residual(const Model<T>& model, int layer, Activations<T>& a) {
  const ModelConfig& config = model.layout.config;
  T* y_TD = a.layers[layer].residual_TD.data();
  copy_residual(config, input_of(config, a, layer), product(a.span.tokens(), a.dims.hidden), y_TD);
  if (config.syncs(layer))
    add_attention(model, layer, a, y_TD);
  else
    add_attention_to_updates(model, layer, a, a.layers[layer].own_STD.data());
}

// M_h = sum over the chosen experts of group h of w_e FFN_e(norm(r)). Where groups do not sync, M_h += this sum of
// norm(r + M_h).
template <typename T>
void experts_half(const Model<T>& model, int layer, const Route* forced, Activations<T>& a) {
  const Layout& layout = model.layout;
  const Dims& d = a.dims;
  const LayerWeights<T>& weights = model.weights.layers[layer];
  LayerActivations<T>& act = a.layers[layer];
  const int rows = expert_rows(layout.config, d, layer, a.span.tokens());
  const auto hidden = static_cast<std::size_t>(d.hidden), experts = static_cast<std::size_t>(d.experts);
  const std::size_t n = product(d.streams, a.span.tokens(), d.hidden);
  norm_streams(model, experts_input(layout.config, a, layer), layout.layers[layer].post_norm, a,
               act.norm2_scale_T.data(), act.norm2_TD.data());
  multiply_packed<T>(rows, {act.norm2_TD.data(), hidden}, weights.router.forward,
                     {act.routing.share_TE.data(), experts}, Into::kOverwrite, a.products);
  route(layout.config, d, layer, rows, forced, act.routing);
  experts_forward(layout.config, d, rows, weights, act.routing, act.norm2_TD.data(), act.gate_up_R2F.data(),
                  act.moe_STD.data(), a.experts, a.products);
  scale_all(act.moe_STD.data(), layout.config.experts_block(layer).residual_factor, n);
  if (!layout.config.syncs(layer)) add_to(act.moe_STD.data(), act.own_STD.data(), n);
}

// Experts beside attention read the same r, and a federation adds both in one sum.
template <typename T>
void run_layer(const Model<T>& model, int layer, const Route* forced, Activations<T>& a) {
  attend(model, layer, a);
  const bool parallel = model.layout.config.experts_block(layer).parallel;
  if (!parallel) add_to_residual(model, layer, a);
  experts_half(model, layer, forced, a);
  if (parallel) add_to_residual(model, layer, a);
}

// Returns the mean over layers of the router losses. Where groups route, the loss of a layer is a sum over groups,
// which ranks have in parts.
template <typename T>
RouterLosses mean_losses(const ModelConfig& config, const Activations<T>& a) {
  const int S = a.dims.streams, layers = a.dims.layers;
  std::vector<RouterLosses> own, all;
  for (int l = 0; l < layers; ++l)
    if (!config.syncs(l)) own.insert(own.end(), a.layers[l].routing.losses.begin(), a.layers[l].routing.losses.end());
  all = own;
  if (a.peers && !own.empty()) {
    all.resize(own.size() / S * a.dims.all_streams);
    a.peers->gather(std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(all)));
  }
  const std::vector<int> begin = a.peers ? a.peers->plan().begin() : std::vector{0, a.dims.all_streams};
  const int routed = static_cast<int>(own.size()) / S;  // layers in which groups route
  RouterLosses mean;
  int row = 0;
  for (int l = 0; l < layers; ++l) {
    RouterLosses layer;
    if (config.syncs(l)) {
      layer = a.layers[l].routing.losses[0];
    } else {
      std::vector<double> balance, z;
      for (std::size_t r = 0; r + 1 < begin.size(); ++r)
        for (int s = 0; s < begin[r + 1] - begin[r]; ++s) {
          const RouterLosses& part = all[begin[r] * routed + row * (begin[r + 1] - begin[r]) + s];
          balance.push_back(part.balance);
          z.push_back(part.z);
        }
      layer = {tree_sum(balance), tree_sum(z)};
      ++row;
    }
    mean.balance += layer.balance / layers;
    mean.z += layer.z / layers;
  }
  return mean;
}

}  // namespace

template <typename T>
LayerActivations<T>::LayerActivations(const ModelConfig& config, const Dims& d, int layer, int tokens)
    : routing(d, expert_rows(config, d, layer, tokens)) {
  const int units = qk_norm_units(config, d), rows = expert_rows(config, d, layer, tokens);
  norm1_STD = large_buffer<T>(product(d.streams, tokens, d.hidden));
  norm1_scale_ST = large_buffer<T>(product(d.streams, tokens));
  qkv_TW = large_buffer<T>(product(tokens, d.qkv));
  raw_TW = large_buffer<T>(units ? product(tokens, d.qkv) : 0);
  qk_scale_TU = large_buffer<T>(product(tokens, units));
  o_TNC = large_buffer<T>(product(tokens, d.heads, d.head_dim));
  log_sum_TN = large_buffer<T>(product(tokens, d.heads));
  residual_TD = large_buffer<T>(product(tokens, d.hidden));
  own_STD = large_buffer<T>(config.syncs(layer) ? 0 : product(rows, d.hidden));
  norm2_TD = large_buffer<T>(product(rows, d.hidden));
  norm2_scale_T = AlignedBuffer<T>(rows);
  gate_up_R2F = large_buffer<T>(product(tokens, d.top_k, 2 * d.width));
  moe_STD = large_buffer<T>(product(d.streams, tokens, d.hidden));
}

CommonLayout::CommonLayout(const ModelConfig& config, const Dims& d)
    : norm_size(d.hidden),
      head_norm_size(config.heads().qk_norm == QkNorm::kHead ? d.head_dim : 0),
      router_size(config.federated() && config.group_sync_every > 1 ? product(d.experts, d.hidden) : 0) {
  input_norm = 0;
  post_norm = norm_size;
  q_norm = post_norm + norm_size;
  k_norm = q_norm + head_norm_size;
  router = k_norm + head_norm_size;
  size = router + router_size;
}

namespace {

SumPlan plan_of_blocks(const ModelConfig& config, const GroupPeers* peers) {
  return peers ? peers->plan() : SumPlan({0, head_blocks(config).count()});
}

Dims dims_of(const ModelConfig& config, const GroupPeers* peers) {
  if (!peers) return Dims(config);
  return {config, {peers->plan().begin()[peers->rank()], peers->plan().begin()[peers->rank() + 1]}};
}

// Where the blocks of heads of a sum begin in o, of which a rank of a federation has those of its streams.
std::vector<int> block_columns(const ModelConfig& config, const Dims& d) {
  std::vector<int> begin = head_blocks(config).begin;
  if (d.streams < d.all_streams) begin.resize(d.streams + 1);  // all are alike
  for (int& column : begin) column *= d.heads / d.kv_heads * d.head_dim;
  return begin;
}

}  // namespace

template <typename T>
Activations<T>::Activations(const Layout& layout, int sequences, int length, GroupPeers* group_peers)
    : dims(dims_of(layout.config, group_peers)),
      peers(group_peers),
      max_sequences(sequences),
      max_length(length),
      rope(layout.config, length),
      block_sum(plan_of_blocks(layout.config, peers), peers ? peers->rank() : 0),
      block_begin(block_columns(layout.config, dims)),
      common(layout.config, dims),
      attention(dims, sequences, length),
      experts(dims, sequences * length) {
  const Dims& d = dims;
  terms = AlignedBuffer<T>(product(block_sum.terms(), kTermRows, d.hidden));
  scaled = AlignedBuffer<T>(product(kTermRows, d.heads, d.head_dim));
  const int tokens = sequences * length;
  const bool several = d.all_streams > 1;
  partials_TD = large_buffer<T>(peers ? product(block_sum.partials(), tokens, d.hidden) : 0);
  for (int l = 0; l < d.layers; ++l) layers.emplace_back(layout.config, d, l, tokens);
  for (AlignedBuffer<T>* buffer : {&embedded_TD, &end_TD, &norm_TD, &d_residual_TD, &d_parallel_TD})
    *buffer = large_buffer<T>(product(tokens, d.hidden));
  int rows = tokens;  // the most of a layer's experts
  for (int l = 0; l < d.layers; ++l) rows = std::max(rows, expert_rows(layout.config, d, l, tokens));
  norm_scale_T = AlignedBuffer<T>(tokens);
  // Not a power of two, so that the rows of a tile are in different cache sets.
  logit_stride = (static_cast<std::size_t>(d.vocab) + 31) / 32 * 32 + 16;
  logits = large_buffer<T>(kHeadRows * logit_stride);
  for (AlignedBuffer<T>* buffer : {&d_moe_STD, &d_added_STD, &d_norm_STD})
    *buffer = large_buffer<T>(product(d.streams, tokens, d.hidden));
  d_read_STD = large_buffer<T>(several ? product(d.streams, tokens, d.hidden) : 0);
  d_common = AlignedBuffer<T>::zeroed(several ? d.streams * common.size : 0);
  d_common_partials = AlignedBuffer<T>(peers ? product(block_sum.partials(), d.layers) * common.size : 0);
  d_attention_STD = large_buffer<T>(product(rows, d.hidden));
  d_qkv_TW = large_buffer<T>(product(tokens, d.qkv));
  d_o_TNC = large_buffer<T>(product(tokens, d.heads, d.head_dim));
  d_weight_TK = large_buffer<T>(product(rows, d.top_k));
  d_scores_TE = large_buffer<T>(product(rows, d.experts));
  d_qkv_weight = large_buffer<T>(product(d.stream_qkv(), d.hidden));
  row_D = AlignedBuffer<T>(d.hidden);
  d_row_D = AlignedBuffer<T>(d.hidden);
}

template <typename T>
RouterLosses forward(const Model<T>& model, std::span<const std::int32_t> tokens, Span span, Activations<T>& a,
                     const Route* forced) {
  const Layout& layout = model.layout;
  const Dims& d = a.dims;
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
  for (int l = 0; l < d.layers; ++l) run_layer(model, l, forced, a);
  copy_residual(layout.config, input_of(layout.config, a, d.layers), product(span.tokens(), d.hidden), a.end_TD.data());
  if (layout.config.has_pending_updates(d.layers)) add_last_updates(model, a, a.end_TD.data());
  if (a.owns_ends())
    for (int t = 0; t < span.tokens(); ++t)
      a.norm_scale_T[t] =
          rms_norm_row(a.end_TD.data() + product(t, d.hidden), model.params + layout.final_norm,
                       static_cast<T>(layout.config.rms_norm_eps), d.hidden, a.norm_TD.data() + product(t, d.hidden));
  return mean_losses(layout.config, a);
}

template <typename T>
double head_loss(const Model<T>& model, std::span<const std::int32_t> targets, Activations<T>& a) {
  const Dims& d = model.layout.dims;
  const std::size_t hidden = d.hidden, stride = a.logit_stride;
  double nats = 0;
  for (int t = 0; t < a.span.tokens(); t += kHeadRows) {
    const int rows = std::min(kHeadRows, a.span.tokens() - t);
    multiply_packed<T>(rows, {a.norm_TD.data() + t * hidden, hidden}, model.weights.head.forward,
                       {a.logits.data(), stride}, Into::kOverwrite, a.products);
    for (int i = 0; i < rows; ++i)
      if (targets[t + i] >= 0) nats += cross_entropy_row(a.logits.data() + i * stride, d.vocab, targets[t + i]);
  }
  return nats;
}

template <typename T>
void all_logits(const Model<T>& model, Activations<T>& a, T* logits_TV) {
  const auto hidden = static_cast<std::size_t>(model.layout.dims.hidden);
  multiply_packed<T>(a.span.tokens(), {a.norm_TD.data(), hidden}, model.weights.head.forward,
                     {logits_TV, static_cast<std::size_t>(model.layout.dims.vocab)}, Into::kOverwrite, a.products);
}

#define FOE_INSTANTIATE(T)                                                                                            \
  template struct LayerActivations<T>;                                                                                \
  template struct Activations<T>;                                                                                     \
  template RouterLosses forward(const Model<T>&, std::span<const std::int32_t>, Span, Activations<T>&, const Route*); \
  template double head_loss(const Model<T>&, std::span<const std::int32_t>, Activations<T>&);                         \
  template void all_logits(const Model<T>&, Activations<T>&, T*);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
