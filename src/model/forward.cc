// The forward pass: Mixture-of-Experts, grouped routing and Federation of Experts in one.
//
// A layer adds attention and then experts to the residual r. In an ordinary model all of it reads r, and when heads and
// experts are split over ranks, r must be summed over ranks after attention and again after the experts. A federated
// model has H groups, each with its share of the heads and of the experts. A group's experts read r, but their output
// M_h stays with the group: the next attention of that group reads r + M_h, and only afterwards do all groups exchange
// M_h + Attn_h in one sum. So a layer has one exchange instead of two:
//
//     layer 1      r = x + sum_h Attn_h(norm(x))
//     layer l > 1  r = r + c * sum_h (M_h + Attn_h(norm(r + M_h)))
//     every layer  M_h = sum of w_e * FFN_e(norm(r)) over the experts e that the token selects in group h
//     the end      x = r + c * sum_h M_h
//
// with c = 1/H (group_sync "mean") or 1 ("sum"). Ranks form a grid (model/rank_grid.h): sums go over its group axis. If
// several ranks share a group, each runs the sequences that it owns, and within the group rows travel to the ranks that
// hold their experts, and sums travel back (model/expert_exchange.h). In plan "ep" the whole model is one such group,
// so nothing is summed over ranks. A "stream" is what one attention reads: a federated model has one for each local
// group, any other model has one.
//
// Shape letters: T tokens, B tokens of a block, D model width, G local streams, P partial sums of this rank's terms,
// n/m local query/KV heads, C head width, E experts, K selected experts, R rows sorted by expert, f local hidden width,
// S sampled rows, V vocabulary, v local part of the vocabulary.
#include "model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/attention/attention.h"
#include "kernels/rows/rows.h"
#include "model/affine.h"
#include "model/products.h"
#include "model/step.h"

namespace foe {
namespace {

void embed(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(
      s.T, [&](std::size_t t) { s.model.weights.embedding_VD.read_row(s.batch.tokens[t], s.a.r_TD.data() + t * D); });
  const AttentionConfig& attention = s.model.config.heads();
  const int C = attention.key_width, half = C / 2;
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    rope_angles(s.batch.positions[t], attention.rope_theta, attention.rope_factor, C, s.a.cosines_TC.data() + t * half,
                s.a.sines_TC.data() + t * half);
  });
}

// input = norm(r) for some of the rows or, with `own_updates` streams, norm(r + M_h) for each of these streams h.
void norm_rows(Step& s, std::span<const float> weight_D, Range rows, int own_updates = 0) {
  const std::size_t D = s.model.config.hidden_size, first = rows.begin * D;
  rms_norm(s.pool, {.x = s.a.r_TD.data() + first,
                    .add = own_updates > 0 ? s.update_TD(0) + first : nullptr,
                    .x_stride = D,
                    .weight = weight_D.data(),
                    .y = s.a.input_TD.data(),
                    .y_stride = D,
                    .rows = rows.size(),
                    .n = static_cast<int>(D),
                    .eps = static_cast<float>(s.model.config.rms_norm_eps),
                    .times = std::max(1, own_updates),
                    .add_stride = s.T * D});
}

void finish_exchange(Step& s) {
  s.exchanged = s.exchanged + s.grid.finish(s.pending);
}

// Starts the sum over all ranks' partial sums [P, T, D]. The result replaces the first of them; the others are
// undefined then.
void begin_sum(Step& s, const SumPlan& sums, float* partials_PTD) {
  s.pending =
      s.grid.start([&s, &sums, partials_PTD, count = static_cast<std::size_t>(s.T) * s.model.config.hidden_size] {
        s.grid.groups().sum_partials(sums, partials_PTD, count, s.a.wire);
      });
}

// r += scale * sum
void add_to_residual(Step& s, const float* sum_TD, float scale) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(s.T, [&](std::size_t t) { add_scaled(s.a.r_TD.data() + t * D, sum_TD + t * D, scale, D); });
}

// q, k, v = the projections of all streams, for a block of rows, in one parallel loop.
void project_qkv(Step& s, const LayerWeights& w, Range rows, bool own_updates) {
  const std::size_t D = s.model.config.hidden_size, G = w.streams.size(), C = s.model.config.heads().key_width;
  const std::size_t n_width = s.model.query_heads() * C, m_width = s.kv.shape().kv_heads * C;
  s.a.products.clear();
  norm_rows(s, w.attention_norm_D, rows, own_updates ? static_cast<int>(G) : 0);
  QuantisedRows input_codes;
  for (std::size_t g = 0; g < G; ++g) {
    const float* input_BD = s.a.input_TD.data() + (own_updates ? g * rows.size() * D : 0);
    if (g == 0 || own_updates) input_codes = quantise(s, w.streams[g].q, input_BD, D, rows.size(), static_cast<int>(g));
    const auto project = [&](const PackedMatrix& matrix, AlignedBuffer<float>& y, std::size_t width) {
      s.a.products.push_back({.x = input_BD,
                              .x_stride = D,
                              .rows = nullptr,
                              .count = rows.size(),
                              .w = &matrix,
                              .y = y.data() + rows.begin * width + g * (width / G),
                              .y_stride = width,
                              .quantised = input_codes});
    };
    project(w.streams[g].q, s.a.q_TnC, n_width);
    project(w.streams[g].k, s.a.k_TmC, m_width);
    project(w.streams[g].v, s.a.v_TmC, m_width);
  }
  multiply(s.pool, s.a.products);
}

// QK-norm of x [T, heads, C] over each head or, with a full QK-norm of a federated model, over the heads of each
// stream, which then have weights of their own.
void norm_heads(Step& s, const AttentionConfig& attention, float* x, int heads, std::span<const float> weight) {
  const int C = attention.key_width, streams = s.model.share().streams(), width = heads * C;
  const bool full = attention.qk_norm == QkNorm::kFull;
  for (int g = 0; g < (full ? streams : 1); ++g) {
    const int n = full ? width / streams : C, at = g * n;
    const auto stride = static_cast<std::size_t>(full ? width : n);
    rms_norm(s.pool, {.x = x + at,
                      .x_stride = stride,
                      .weight = weight.data() + at,
                      .y = x + at,
                      .y_stride = stride,
                      .rows = full ? s.T : s.T * heads,
                      .n = n,
                      .eps = static_cast<float>(s.model.config.rms_norm_eps)});
  }
}

// QK-norm over all heads together, for models with a shared residual. Squares are added in each block of heads, and the
// blocks in the order of attention's terms; if heads are split over ranks, this is a sum over ranks.
void norm_whole_width(Step& s, const AttentionConfig& attention, const LayerWeights& w, int n, int m) {
  const int C = attention.key_width, per_kv = attention.per_kv_head();
  const std::size_t n_width = n * C, m_width = m * C, count = 2 * static_cast<std::size_t>(s.T);
  float* squares_BT2 = s.a.squares_BT2.data();
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const float *q = s.a.q_TnC.data() + t * n_width, *k = s.a.k_TmC.data() + t * m_width;
    for (std::size_t b = 0; b < s.model.o_blocks.size(); ++b) {
      const OutputBlock& block = s.model.o_blocks[b];
      squares_BT2[b * count + 2 * t] = sum_of_squares(q + block.column, block.columns);
      squares_BT2[b * count + 2 * t + 1] = sum_of_squares(k + block.column / per_kv, block.columns / per_kv);
    }
  });
  const SumPlan& sums = s.model.attention_sums;
  sums.reduce_own(s.grid.groups().rank(), squares_BT2, count);
  if (sums.ranks() > 1) {
    s.pending = s.grid.start([&] { s.grid.groups().sum_partials(sums, squares_BT2, count); });
    finish_exchange(s);
  }
  const auto inverse_rms = [&](float squares, int heads) {
    return 1.0f / std::sqrt(squares / static_cast<float>(heads * C) + static_cast<float>(s.model.config.rms_norm_eps));
  };
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    scale_row(s.a.q_TnC.data() + t * n_width, w.q_norm.data(), inverse_rms(squares_BT2[2 * t], attention.query_heads),
              static_cast<int>(n_width));
    scale_row(s.a.k_TmC.data() + t * m_width, w.k_norm.data(), inverse_rms(squares_BT2[2 * t + 1], attention.kv_heads),
              static_cast<int>(m_width));
  });
}

void norm_and_rotate(Step& s, const AttentionConfig& attention, const LayerWeights& w) {
  const int C = attention.key_width, n = s.model.query_heads(), m = s.kv.shape().kv_heads;
  if (attention.qk_norm == QkNorm::kFull && !s.model.config.federated()) {
    norm_whole_width(s, attention, w, n, m);
  } else if (attention.qk_norm != QkNorm::kNone) {
    norm_heads(s, attention, s.a.q_TnC.data(), n, w.q_norm);
    norm_heads(s, attention, s.a.k_TmC.data(), m, w.k_norm);
  }
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const float* cosines = s.a.cosines_TC.data() + t * (C / 2);
    const float* sines = s.a.sines_TC.data() + t * (C / 2);
    for (int h = 0; h < n; ++h) rope(s.a.q_TnC.data() + (t * n + h) * C, cosines, sines, C);
    for (int h = 0; h < m; ++h) rope(s.a.k_TmC.data() + (t * m + h) * C, cosines, sines, C);
  });
}

// From the second layer on, each stream of a federated model has an update that the others have not seen.
bool has_own_updates(const Step& s, int layer) {
  return s.model.config.federated() && layer > 0;
}

// Starts r += c * sum_h (M_h + Attn_h(norm(r + M_h))) or, with a shared residual, r += Attn(norm(r)).
void begin_attention(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const bool own_updates = has_own_updates(s, layer);
  const int block = own_updates ? kInputBlock : s.T;
  for (int t = 0; t < s.T; t += block) project_qkv(s, w, {t, std::min(s.T, t + block)}, own_updates);
  norm_and_rotate(s, s.model.config.attention(layer), w);
  write_kv(s.pool, s.batch, s.kv.shape(), s.a.k_TmC.data(), s.a.v_TmC.data(), s.kv.layer(layer));
  attention(s.pool, s.batch, s.kv.shape(), s.model.query_heads(), s.a.q_TnC.data(), s.kv.layer(layer),
            s.a.attended_TnC.data());
  project_output(s, layer, own_updates);
  begin_sum(s, s.model.attention_sums, s.a.term_PTD.data());
}

// Computes the router's scores of all E experts, on every rank from the same r, and selects K.
void route(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const ExpertTable table = expert_table(s.model.config, layer);
  const std::size_t D = s.model.config.hidden_size;
  if (!s.model.config.experts(layer).dense()) {
    const Product scores{.x = s.a.input_TD.data(),
                         .x_stride = D,
                         .rows = nullptr,
                         .count = s.T,
                         .w = &w.router_ED,
                         .y = s.a.scores_TE.data(),
                         .y_stride = static_cast<std::size_t>(table.columns())};
    multiply(s.pool, {&scores, 1});
  }
  const auto if_any = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };
  const Controls<float> controls{.offset_E = if_any(w.router_bias_E), .selection_bias_E = if_any(w.selection_bias_E)};
  select_experts(s.pool, table, selection(s.model.config, layer), controls, s.a.scores_TE.data(), s.T, s.a.routing);
}

// Drops the rows that are not sampled: after the last attention nothing reads them.
void keep_sampled_rows(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.T = s.batch.num_sampled();
  for (int i = 0; i < s.T; ++i) {
    const float* row = s.a.r_TD.data() + s.batch.sampled_rows[i] * D;  // rows ascend, so none is overwritten early
    std::copy(row, row + D, s.a.r_TD.data() + i * D);
  }
}

void finish_attention(Step& s, int layer) {
  finish_exchange(s);
  add_to_residual(s, s.a.term_PTD.data(), has_own_updates(s, layer) ? s.model.config.sync_scale() : 1.0f);
  if (layer + 1 == s.model.config.num_layers()) keep_sampled_rows(s);
}

// Starts update_h = M_h = sum of w_e * FFN_e(norm(r)) over the selected experts of each local stream. The rows travel
// to their experts or, if these are all here, are multiplied.
void begin_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::size_t D = c.hidden_size;
  float* input_TD = s.a.input_TD.data();
  norm_rows(s, w.expert_norm_D, {0, s.T});
  route(s, layer);
  if (s.a.exchange) {
    pack_rows(*s.a.exchange, s.pool, s.a.routing, input_TD, s.T);
    s.pending = s.grid.start([&s] { exchange_messages(*s.a.exchange, s.grid.members()); });
    return;
  }
  sort_rows(s.model.share(), s.T, s.a.routing);
  if (c.dense()) {
    multiply_dense(s, layer);
  } else {
    multiply_experts(s, w, input_TD, D, s.T, s.a.routing);
    combine_experts(s.pool, c, s.a.routing, s.model.expert_parts, s.a.output_RD.data(), s.T, s.update_TD(0));
  }
  if (!c.federated()) begin_sum(s, s.model.expert_sums, s.a.update_GTD.data());
}

// Multiplies the rows that have travelled here, and sends their sums back.
void run_travelled_rows(Step& s, int layer) {
  ExpertExchange& x = *s.a.exchange;
  finish_exchange(s);
  take_rows(x, s.pool, s.model.share());
  multiply_experts(s, s.model.weights.layers[layer], x.arrived, x.arrived_stride, x.rows, x.routing);
  pack_sums(x, s.pool, s.model.config, s.a.output_RD.data());
  s.pending = s.grid.start([&s] { exchange_messages(*s.a.exchange, s.grid.members()); });
}

// Waits for the sum over experts with rows, and adds affine experts: update_h = M_h. With a shared residual, adds it to
// r.
void finish_experts(Step& s, int layer) {
  const bool shared = !s.model.config.federated();
  if (s.a.exchange || shared) finish_exchange(s);
  if (s.a.exchange) take_sums(*s.a.exchange, s.pool, s.a.routing, s.T, s.a.update_GTD.data());
  if (!s.model.affine_parts.empty()) {
    const AffineInputs in{s.a.scores_TE.data(), s.a.input_TD.data(), s.model.weights.layers[layer].constants_AD.data()};
    add_affine(s.pool, expert_table(s.model.config, layer), s.a.routing, in, s.model.affine_parts, s.T,
               s.model.config.hidden_size, s.update_TD(0));
  }
  if (shared) add_to_residual(s, s.a.update_GTD.data(), 1.0f);
}

// Runs one layer. Each exchange of a step goes on while the other step, if there is one, computes.
void run_layer(std::vector<Step>& steps, int layer, Activations& a) {
  LayerStats& stats = a.layers[layer];
  for (Step& s : steps) {
    if (layer > 0) {
      const PartClock clock(s, a.layers[layer - 1].experts);
      finish_experts(s, layer - 1);
    }
    const PartClock clock(s, stats.attention);
    begin_attention(s, layer);
  }
  for (Step& s : steps) {
    {
      const PartClock clock(s, stats.attention);
      finish_attention(s, layer);
    }
    const PartClock clock(s, stats.experts);
    begin_experts(s, layer);
  }
  if (a.exchange)
    for (Step& s : steps) {
      const PartClock clock(s, stats.experts);
      run_travelled_rows(s, layer);
    }
  for (const Step& s : steps) {
    const Routing& sorted = s.a.exchange ? s.a.exchange->routing : s.a.routing;
    stats.rows += sorted.expert_begin.back();
    a.load.add(layer, s.model.config, s.model.share(), s.a.routing, s.T, sorted);
  }
}

}  // namespace

Logits forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid, ThreadPool& pool) {
  FOE_CHECK(batch.num_tokens() <= a.max_tokens && batch.num_sampled() <= a.max_sampled,
            "{} tokens of {}, {} sampled of {}", batch.num_tokens(), a.max_tokens, batch.num_sampled(), a.max_sampled);
  if (model.share().idle()) return gather_logits(model, batch, a, pool, grid.world());
  const ModelConfig& c = model.config;
  std::vector<Step> steps = make_steps(model, batch, kv, a, grid, pool);
  const RankGrid::Scope scope(grid);  // after an Error no exchange may go on that uses the steps
  std::fill(a.layers.begin(), a.layers.end(), LayerStats{});
  a.scoring = {};
  for (Step& s : steps) embed(s);
  for (int layer = 0; layer < c.num_layers(); ++layer) run_layer(steps, layer, a);
  for (Step& s : steps) {
    finish_experts(s, c.num_layers() - 1);
    if (c.federated()) {
      model.expert_sums.reduce_own(grid.groups().rank(), s.a.update_GTD.data(),
                                   static_cast<std::size_t>(s.T) * c.hidden_size);
      begin_sum(s, model.expert_sums, s.a.update_GTD.data());
    }
  }
  float* logits_Sv = a.logits_Sv.data();
  for (Step& s : steps) {
    if (c.federated()) {
      finish_exchange(s);
      add_to_residual(s, s.a.update_GTD.data(), c.sync_scale());
    }
    const PartClock clock(s, a.scoring);
    norm_rows(s, model.weights.final_norm_D, {0, s.T});
    const float* x_SD = s.a.input_TD.data();
    score_vocabulary(model, pool, x_SD, quantise(s, model.weights.head_vD, x_SD, c.hidden_size, s.T), s.T, logits_Sv);
    logits_Sv += static_cast<std::size_t>(s.T) * model.share().vocab.size();
  }
  const PartClock clock(steps.front(), a.scoring);
  return gather_logits(model, batch, a, pool, grid.world());
}

}  // namespace foe
