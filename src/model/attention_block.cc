// Shape letters: T tokens, B tokens of a block, D model width, G local streams, P partial sums of this rank's terms,
// n/m local query/KV heads, C head width.
#include "model/attention_block.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/rows/rows.h"
#include "model/products.h"

namespace foe {
namespace {

// q, k, v = the projections of all streams, for a block of rows, in one parallel loop.
void project_qkv(Step& s, const LayerWeights& w, Range rows, bool own_updates) {
  const std::size_t D = s.model.config.hidden_size, G = w.streams.size(), C = s.model.config.heads().key_width;
  const std::size_t n_width = s.model.query_heads() * C, m_width = s.kv.shape().kv_heads * C;
  s.a.products.list.clear();
  norm_rows(s, w.attention_norm_D, rows, own_updates ? static_cast<int>(G) : 0);
  QuantisedRows input_codes;
  for (std::size_t g = 0; g < G; ++g) {
    const float* input_BD = s.a.products.input_TD.data() + (own_updates ? g * rows.size() * D : 0);
    if (g == 0 || own_updates) input_codes = quantise(s, w.streams[g].q, input_BD, D, rows.size(), static_cast<int>(g));
    const auto project = [&](const PackedMatrix& matrix, AlignedBuffer<float>& y, std::size_t width) {
      s.a.products.list.push_back({.x = input_BD,
                                   .x_stride = D,
                                   .rows = nullptr,
                                   .count = rows.size(),
                                   .w = &matrix,
                                   .y = y.data() + rows.begin * width + g * (width / G),
                                   .y_stride = width,
                                   .quantised = input_codes});
    };
    project(w.streams[g].q, s.a.attention.q_TnC, n_width);
    project(w.streams[g].k, s.a.attention.k_TmC, m_width);
    project(w.streams[g].v, s.a.attention.v_TmC, m_width);
  }
  multiply(s.pool, s.a.products.list);
}

// QK-norm of x [T, heads, C] over each head or, with a full QK-norm of a federated model, over the heads of each
// stream, which then have weights of their own.
void norm_heads(Step& s, float* x, int heads, std::span<const float> weight) {
  const AttentionConfig& attention = s.model.config.heads();
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
void norm_whole_width(Step& s, const LayerWeights& w, int n, int m) {
  const AttentionConfig& attention = s.model.config.heads();
  const int C = attention.key_width, per_kv = attention.per_kv_head();
  const std::size_t n_width = n * C, m_width = m * C, count = 2 * static_cast<std::size_t>(s.T);
  float* squares_BT2 = s.a.attention.squares_BT2.data();
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const float *q = s.a.attention.q_TnC.data() + t * n_width, *k = s.a.attention.k_TmC.data() + t * m_width;
    for (std::size_t b = 0; b < s.model.o_blocks.size(); ++b) {
      const OutputBlock& block = s.model.o_blocks[b];
      squares_BT2[b * count + 2 * t] = sum_of_squares(q + block.column, block.columns);
      squares_BT2[b * count + 2 * t + 1] = sum_of_squares(k + block.column / per_kv, block.columns / per_kv);
    }
  });
  const SumPlan& sums = s.model.attention_sums;
  sums.reduce_own(s.grid.across_groups().rank(), squares_BT2, count);
  if (sums.ranks() > 1) {
    s.pending = s.grid.start([&] { s.grid.across_groups().sum_partials(sums, squares_BT2, count); });
    finish_exchange(s);
  }
  const auto inverse_rms = [&](float squares, int heads) {
    return 1.0f / std::sqrt(squares / static_cast<float>(heads * C) + static_cast<float>(s.model.config.rms_norm_eps));
  };
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    scale_row(s.a.attention.q_TnC.data() + t * n_width, w.q_norm.data(),
              inverse_rms(squares_BT2[2 * t], attention.query_heads), static_cast<int>(n_width));
    scale_row(s.a.attention.k_TmC.data() + t * m_width, w.k_norm.data(),
              inverse_rms(squares_BT2[2 * t + 1], attention.kv_heads), static_cast<int>(m_width));
  });
}

void norm_and_rotate(Step& s, const LayerWeights& w) {
  const QkNorm norm = s.model.config.heads().qk_norm;
  const int n = s.model.query_heads(), m = s.kv.shape().kv_heads, C = s.model.config.heads().key_width;
  if (norm == QkNorm::kFull && !s.model.config.federated()) {
    norm_whole_width(s, w, n, m);
  } else if (norm != QkNorm::kNone) {
    norm_heads(s, s.a.attention.q_TnC.data(), n, w.q_norm);
    norm_heads(s, s.a.attention.k_TmC.data(), m, w.k_norm);
  }
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const float* cosines = s.state.cosines_TC.data() + t * (C / 2);
    const float* sines = s.state.sines_TC.data() + t * (C / 2);
    for (int h = 0; h < n; ++h) rope(s.a.attention.q_TnC.data() + (t * n + h) * C, cosines, sines, C);
    for (int h = 0; h < m; ++h) rope(s.a.attention.k_TmC.data() + (t * m + h) * C, cosines, sines, C);
  });
}

// From the second layer on, each stream of a federated model has an update that the others have not seen.
bool has_own_updates(const Step& s, int layer) {
  return s.model.config.federated() && layer > 0;
}

// Drops the rows that are not sampled: after the last attention nothing reads them.
void keep_sampled_rows(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.T = s.batch.num_sampled();
  for (int i = 0; i < s.T; ++i) {
    const float* row = s.state.r_TD.data() + s.batch.sampled_rows[i] * D;  // rows ascend, so none is overwritten early
    std::copy(row, row + D, s.state.r_TD.data() + i * D);
  }
}

}  // namespace

void begin_attention(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const bool own_updates = has_own_updates(s, layer);
  const int block = own_updates ? kInputBlock : s.T;
  for (int t = 0; t < s.T; t += block) project_qkv(s, w, {t, std::min(s.T, t + block)}, own_updates);
  norm_and_rotate(s, w);
  write_kv(s.pool, s.batch, s.kv.shape(), s.a.attention.k_TmC.data(), s.a.attention.v_TmC.data(), s.kv.layer(layer));
  attention(s.pool, s.batch, s.kv.shape(), s.model.query_heads(), {}, s.a.attention.q_TnC.data(), s.kv.layer(layer),
            s.a.attention.attended_TnC.data());
  project_output(s, layer, own_updates);
  begin_sum(s, s.model.attention_sums, s.state.term_PTD.data());
}

void finish_attention(Step& s, int layer) {
  add_to_residual(s, s.state.term_PTD.data(), has_own_updates(s, layer) ? s.model.config.sync_scale() : 1.0f);
  if (layer + 1 == s.model.config.num_layers()) keep_sampled_rows(s);
}

}  // namespace foe
