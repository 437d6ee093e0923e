// Shape letters: T tokens, B tokens of a block, D model width, G local streams, P partial sums of this rank's terms,
// n/m local query/KV heads, C width of a query or key, W of a value.
#include "model/attention_block.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/rows/rows.h"
#include "model/products.h"

namespace foe {
namespace {

// q, k, v = the projections of all streams, for a block of rows, in one parallel loop.
void project_qkv(Step& s, int layer, Range rows, bool own_updates) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::size_t streams = w.streams.size();
  norm_rows(s, w.attention_norm_D, rows, own_updates ? static_cast<int>(streams) : 0);
  const Input in = input_rows(s, own_updates ? static_cast<int>(streams) * rows.size() : rows.size());
  s.a.products.list.clear();
  for (std::size_t g = 0; g < streams; ++g) {
    const float* x = in.x + (own_updates ? g * rows.size() * in.stride : 0);
    const int group = s.model.share().groups.begin + static_cast<int>(g);
    show(s, {ModelInput::kAttention, layer, group}, {x, in.stride, nullptr, rows.size(), in.depth});
    const auto project = [&](const PackedMatrix& matrix, const std::vector<float>& bias, HeadRows& y) {
      const std::size_t column = g * (y.stride() / streams);
      s.a.products.list.push_back({.x = x,
                                   .x_stride = in.stride,
                                   .count = rows.size(),
                                   .w = &matrix,
                                   .y = y.row(rows.begin) + column,
                                   .y_stride = y.stride(),
                                   .plus = bias.empty() ? nullptr : bias.data() + column});
    };
    project(w.streams[g].q, w.q_bias, s.state.q);
    project(w.streams[g].k, w.k_bias, s.a.attention.k);
    project(w.streams[g].v, w.v_bias, s.a.attention.v);
  }
  linear(s, in, s.a.products.list);
}

// QK-norm of x over each head or, with a full QK-norm of a federated model, over the heads of each stream, which then
// have weights of their own.
void norm_heads(Step& s, HeadRows& x, std::span<const float> weight) {
  const bool full = s.model.config.heads().qk_norm == QkNorm::kFull;
  const int streams = full ? s.model.share().streams() : 1;
  const int n = full ? static_cast<int>(x.stride()) / streams : x.width;
  const auto stride = static_cast<std::size_t>(n) * streams;
  for (int at = 0; at < n * streams; at += n)
    rms_norm(s.pool, {.x = x.row(0) + at,
                      .x_stride = stride,
                      .weight = weight.data() + at,
                      .y = x.row(0) + at,
                      .y_stride = stride,
                      .rows = full ? s.T : s.T * x.heads,
                      .n = n,
                      .eps = static_cast<float>(s.model.config.rms_norm_eps)});
}

// QK-norm over all heads together, for models with a shared residual. Squares are added in each block of heads, and the
// blocks in the order of attention's terms; if heads are split over ranks, this is a sum over ranks.
void norm_whole_width(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::span<const OutputBlock> blocks = s.model.layers[layer].o_blocks;
  const AttentionConfig& attention = s.model.config.heads();
  const std::size_t count = 2 * static_cast<std::size_t>(s.T);
  HeadRows &q = s.state.q, &k = s.a.attention.k;
  float* squares_BT2 = s.a.attention.squares_BT2.data();
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const Range heads = blocks[b].kv_heads;
      const int column = heads.begin * k.width, columns = heads.size() * k.width, per_kv = attention.per_kv_head();
      squares_BT2[b * count + 2 * t] = sum_of_squares(q.row(t) + column * per_kv, columns * per_kv);
      squares_BT2[b * count + 2 * t + 1] = sum_of_squares(k.row(t) + column, columns);
    }
  });
  const SumPlan& sums = s.model.attention_sums;
  sums.reduce_own(s.grid.across_groups().rank(), squares_BT2, count);
  if (sums.ranks() > 1) {
    s.pending = s.grid.start([&] { s.grid.across_groups().sum_partials(sums, squares_BT2, count); });
    finish_exchange(s);
  }
  const auto scale = [&](float* row, const HeadRows& x, float squares, int all_heads, std::span<const float> weight) {
    const auto mean = squares / static_cast<float>(all_heads * x.width);
    scale_row(row, weight.data(), 1.0f / std::sqrt(mean + static_cast<float>(s.model.config.rms_norm_eps)),
              static_cast<int>(x.stride()));
  };
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    scale(q.row(t), q, squares_BT2[2 * t], attention.query_heads, w.q_norm);
    scale(k.row(t), k, squares_BT2[2 * t + 1], attention.kv_heads, w.k_norm);
  });
}

void norm_queries_and_keys(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const QkNorm norm = s.model.config.heads().qk_norm;
  if (norm == QkNorm::kFull && !s.model.config.federated()) {
    norm_whole_width(s, layer);
  } else if (norm != QkNorm::kNone) {
    norm_heads(s, s.state.q, w.q_norm);
    norm_heads(s, s.a.attention.k, w.k_norm);
  }
}

void rotate(Step& s, const AttentionConfig& attention) {
  const int width = attention.rotary_width();
  if (width == 0) return;
  const Angles& angles = s.state.angles_of(attention);
  const auto turn = attention.interleaved ? rope_interleaved : rope;
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const std::size_t at = t * (width / 2);
    for (HeadRows* x : {&s.state.q, &s.a.attention.k})
      for (int h = 0; h < x->heads; ++h)
        turn(x->row(t) + h * x->width, angles.cosines_TR.data() + at, angles.sines_TR.data() + at, width);
  });
}

// Leaves queries, keys and values of the rows of the rank, as attention takes them.
void prepare_heads(Step& s, int layer) {
  const bool own_updates = s.model.config.reads_updates(layer);
  const int block = own_updates ? kInputBlock : s.T;
  for (int t = 0; t < s.T; t += block) project_qkv(s, layer, {t, std::min(s.T, t + block)}, own_updates);
  const AttentionConfig& a = s.model.config.attention(layer);
  if (a.norm_after_rope) rotate(s, a);
  norm_queries_and_keys(s, layer);
  if (!a.norm_after_rope) rotate(s, a);
}

// Writes the keys and values of these rows to the cache.
void keep_keys(Step& s, int layer, const Batch& rows) {
  write_kv(s.pool, rows, s.kv.shape(), s.a.attention.k.row(0), s.a.attention.v.row(0), s.kv.layer(layer));
}

// Computes what the local heads attend to.
void attend(Step& s, int layer) {
  const AttentionConfig& a = s.model.config.attention(layer);
  const AttentionParams params{
      .scale = a.scale, .softcap = a.softcap, .window = a.window, .sinks_n = s.model.weights.layers[layer].sinks_n};
  attention(s.pool, s.batch, s.kv.shape(), s.state.q.heads, params, s.state.q.row(0), s.kv.layer(layer),
            s.a.attention.attended.row(0));
}

// Whether the sum waits until the experts have read r: beside them, unless their updates are in the same sum.
bool waits_for_experts(const Step& s, int layer) {
  return s.model.config.experts_block(layer).parallel && !s.model.config.federated();
}

// Drops the rows that are not sampled: after the last attention nothing reads them. What experts or a later sum still
// read is kept: the terms of a sum that waits, and the updates that a layer without a sum has left.
void keep_sampled_rows(Step& s, bool with_terms, bool with_updates) {
  const std::size_t D = s.model.config.hidden_size, before = s.T;
  s.T = s.batch.num_sampled();
  const auto keep = [&](const float* from_TD, float* to_TD) {
    for (int i = 0; i < s.T; ++i) {
      const float* row = from_TD + s.batch.sampled_rows[i] * D;  // rows ascend, so none is overwritten early
      std::copy(row, row + D, to_TD + i * D);
    }
  };
  keep(s.state.r_TD.data(), s.state.r_TD.data());
  if (with_terms) keep(s.state.term_PTD.data(), s.state.term_PTD.data());
  for (int g = 0; g < s.model.share().streams() && with_updates; ++g)
    keep(s.state.update_GTD.data() + g * before * D, s.update_TD(g));
}

// In a federated model what the groups add is summed together with their updates: a factor comes before that.
void scale_attended(Step& s, double factor) {
  if (!s.model.config.federated() || factor == 1) return;
  HeadRows& attended = s.a.attention.attended;
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    scale_and_cap(attended.row(t), static_cast<int>(attended.stride()), static_cast<float>(factor));
  });
}

}  // namespace

void begin_attention(Step& s, int layer) {
  prepare_heads(s, layer);
  keep_keys(s, layer, s.batch);
  begin_attending(s, layer);
}

void begin_keys(Step& s, int layer) {
  prepare_heads(s, layer);
  KeyExchange& keys = *s.state.keys;
  pack_keys(keys, s.pool, s.kv.shape(), s.all, s.a.attention.k.row(0), s.a.attention.v.row(0));
  s.pending = s.grid.start([&] { exchange_keys(keys, s.grid.within_group()); });
}

void finish_keys(Step& s, int layer) {
  take_keys(*s.state.keys, s.pool, s.kv.shape(), s.all, s.a.attention.k.row(0), s.a.attention.v.row(0));
  keep_keys(s, layer, s.all);
}

void begin_attending(Step& s, int layer) {
  attend(s, layer);
  scale_attended(s, s.model.config.attention_block(layer).residual_factor);
  project_output(s, layer);
  if (s.model.config.syncs(layer)) begin_sum(s, s.model.attention_sums, s.state.term_PTD.data());
}

void add_attention(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  float* sum_TD = s.state.term_PTD.data();
  if (!c.federated())
    finish_output(s, s.model.weights.layers[layer].attention_output_norm_D, c.attention_block(layer).residual_factor,
                  s.T, sum_TD);
  add_to_residual(s, sum_TD, c.sums_updates(layer) ? c.sync_scale() : 1.0f);
}

void finish_attention(Step& s, int layer) {
  const bool waits = waits_for_experts(s, layer), syncs = s.model.config.syncs(layer);
  if (!waits && syncs) add_attention(s, layer);
  if (layer + 1 == s.model.config.num_layers()) keep_sampled_rows(s, waits, !syncs);
}

}  // namespace foe
