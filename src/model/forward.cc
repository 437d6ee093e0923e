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
// with c = 1/H (group_sync "mean") or 1 ("sum"). Ranks form a grid (model/rank_grid.h): sums go over its group axis.
// Where several ranks share a group, each runs the sequences that it owns, and within the group rows travel to the
// ranks that have their experts and back (model/expert_exchange.h). In plan "ep" the whole model is one such group, so
// nothing is summed. A "stream" is what one attention reads: there are as many as local groups in a federated model,
// and one otherwise.
//
// Shape letters: T tokens, D model width, G local streams, n/m local query/KV heads, C head width, E experts, K
// selected experts, R rows sorted by expert, f local hidden width, S sampled rows, V vocabulary, v local part of it.
#include "model/forward.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "kernels/rows.h"

namespace foe {
namespace {

struct Step {
  const Model& model;
  const Batch& batch;  // what this rank runs: all of the step, or of it the sequences that it owns
  const Batch& whole;  // the step
  KvCache& kv;
  Activations& a;
  RankGrid& grid;
  ThreadPool& pool;
  int T;  // rows of r: the batch's tokens, and after the last attention only those that are sampled
};

// Deals the time since it was last asked to a layer's arithmetic and exchanges.
class LayerClock {
 public:
  LayerClock(const Communicator& comm, LayerStats& stats)
      : comm_(comm), stats_(stats), at_(Clock::now()), sent_(comm.counters().total()) {
    stats_ = {};
  }
  void add_to(double LayerStats::*arithmetic) {
    const Clock::time_point now = Clock::now();
    const CommCounter sent = comm_.counters().total(), exchanged = sent - sent_;
    stats_.*arithmetic += std::chrono::duration<double>(now - at_).count() - exchanged.seconds;
    stats_.moving_s += exchanged.seconds - exchanged.waiting_s;
    stats_.waiting_s += exchanged.waiting_s;
    stats_.bytes += exchanged.bytes;
    at_ = now;
    sent_ = sent;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Communicator& comm_;
  LayerStats& stats_;
  Clock::time_point at_;
  CommCounter sent_;
};

void embed(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(
      s.T, [&](std::size_t t) { s.model.weights.embedding_VD.read_row(s.batch.tokens[t], s.a.r_TD.data() + t * D); });
  const ModelConfig& c = s.model.config;
  const int half = c.head_dim / 2;
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    rope_angles(s.batch.positions[t], c.rope_theta, c.rope_scaling_factor, c.head_dim, s.a.cosines_TC.data() + t * half,
                s.a.sines_TC.data() + t * half);
  });
}

// input = norm(r) or, for a stream with an update of its own, norm(r + M_h).
void norm_streams(Step& s, std::span<const float> weight_D, int streams, bool with_updates) {
  const std::size_t D = s.model.config.hidden_size, TD = s.T * D;
  for (int g = 0; g < streams; ++g)
    rms_norm(s.pool, {.x = s.a.r_TD.data(),
                      .add = with_updates ? s.a.update_GTD.data() + g * TD : nullptr,
                      .x_stride = D,
                      .weight = weight_D.data(),
                      .y = s.a.input_GTD.data() + g * TD,
                      .y_stride = D,
                      .rows = s.T,
                      .n = static_cast<int>(D),
                      .eps = static_cast<float>(s.model.config.rms_norm_eps)});
}

// r += scale * the sum of all groups' terms [G, T, D], which are used up.
void sum_into_residual(Step& s, float* terms_GTD, float scale) {
  const std::size_t D = s.model.config.hidden_size;
  s.grid.groups().ordered_sum(s.model.sums, terms_GTD, s.T * D);
  s.pool.parallel_for(s.T, [&](std::size_t t) { add_scaled(s.a.r_TD.data() + t * D, terms_GTD + t * D, scale, D); });
}

// term_h += M_h
void add_updates_to_terms(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(s.model.share().streams() * static_cast<std::size_t>(s.T), [&](std::size_t row) {
    add_to(s.a.term_GTD.data() + row * D, s.a.update_GTD.data() + row * D, D);
  });
}

// q, k, v = the streams' projections of their inputs, in one parallel pass.
void project_qkv(Step& s, const LayerWeights& w, bool one_input) {
  const ModelConfig& c = s.model.config;
  const std::size_t D = c.hidden_size, G = w.streams.size();
  const std::size_t n_width = s.model.query_heads() * c.head_dim, m_width = s.kv.shape().kv_heads * c.head_dim;
  s.a.products.clear();
  for (std::size_t g = 0; g < G; ++g) {
    const float* x_TD = s.a.input_GTD.data() + (one_input ? 0 : g * s.T * D);
    const auto project = [&](const PackedMatrix& matrix, AlignedBuffer<float>& y, std::size_t width) {
      s.a.products.push_back({.x = x_TD,
                              .x_stride = D,
                              .rows = nullptr,
                              .count = s.T,
                              .w = &matrix,
                              .y = y.data() + g * (width / G),
                              .y_stride = width});
    };
    project(w.streams[g].q, s.a.q_TnC, n_width);
    project(w.streams[g].k, s.a.k_TmC, m_width);
    project(w.streams[g].v, s.a.v_TmC, m_width);
  }
  multiply(s.pool, s.a.products);
}

// QK-norm over each head, or over the width of a stream's heads.
void norm_heads(Step& s, float* x, int heads, std::span<const float> weight, int norm_heads_together) {
  const ModelConfig& c = s.model.config;
  const std::size_t width = static_cast<std::size_t>(heads) * c.head_dim;
  const int n = norm_heads_together * c.head_dim;
  for (std::size_t at = 0; at < width; at += n)
    rms_norm(s.pool, {.x = x + at,
                      .x_stride = width,
                      .weight = weight.data() + (c.qk_norm == QkNorm::kFull ? at : 0),
                      .y = x + at,
                      .y_stride = width,
                      .rows = s.T,
                      .n = n,
                      .eps = static_cast<float>(c.rms_norm_eps)});
}

// QK-norm over all heads where they are split over ranks: the squares are summed over ranks first.
void norm_split_width(Step& s, const LayerWeights& w, int n, int m) {
  const ModelConfig& c = s.model.config;
  const int n_width = n * c.head_dim, m_width = m * c.head_dim;
  float* squares_T2 = s.a.squares_T2.data();
  for (int t = 0; t < s.T; ++t) {
    squares_T2[2 * t] = sum_of_squares(s.a.q_TnC.data() + static_cast<std::size_t>(t) * n_width, n_width);
    squares_T2[2 * t + 1] = sum_of_squares(s.a.k_TmC.data() + static_cast<std::size_t>(t) * m_width, m_width);
  }
  s.grid.groups().ordered_sum(s.model.sums, squares_T2, 2 * static_cast<std::size_t>(s.T));
  const auto inverse_rms = [&](float squares, int heads) {
    return 1.0f / std::sqrt(squares / static_cast<float>(heads * c.head_dim) + static_cast<float>(c.rms_norm_eps));
  };
  for (int t = 0; t < s.T; ++t) {
    scale_row(s.a.q_TnC.data() + static_cast<std::size_t>(t) * n_width, w.q_norm.data(),
              inverse_rms(squares_T2[2 * t], c.num_attention_heads), n_width);
    scale_row(s.a.k_TmC.data() + static_cast<std::size_t>(t) * m_width, w.k_norm.data(),
              inverse_rms(squares_T2[2 * t + 1], c.num_key_value_heads), m_width);
  }
}

void norm_and_rotate(Step& s, const LayerWeights& w) {
  const ModelConfig& c = s.model.config;
  const int G = s.model.share().streams(), n = s.model.query_heads(), m = s.kv.shape().kv_heads;
  if (c.qk_norm == QkNorm::kFull && !c.federated() && m < c.num_key_value_heads) {
    norm_split_width(s, w, n, m);
  } else if (c.qk_norm != QkNorm::kNone) {
    const bool full = c.qk_norm == QkNorm::kFull;
    norm_heads(s, s.a.q_TnC.data(), n, w.q_norm, full ? n / G : 1);
    norm_heads(s, s.a.k_TmC.data(), m, w.k_norm, full ? m / G : 1);
  }
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    const float* cosines = s.a.cosines_TC.data() + t * (c.head_dim / 2);
    const float* sines = s.a.sines_TC.data() + t * (c.head_dim / 2);
    for (int h = 0; h < n; ++h) rope(s.a.q_TnC.data() + (t * n + h) * c.head_dim, cosines, sines, c.head_dim);
    for (int h = 0; h < m; ++h) rope(s.a.k_TmC.data() + (t * m + h) * c.head_dim, cosines, sines, c.head_dim);
  });
}

// term_h = Attn_h(input_h) for every local stream.
void attend(Step& s, int layer, bool one_input) {
  const ModelConfig& c = s.model.config;
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::size_t D = c.hidden_size, G = w.streams.size(), n_width = s.model.query_heads() * c.head_dim;
  project_qkv(s, w, one_input);
  norm_and_rotate(s, w);
  write_kv(s.batch, s.kv.shape(), s.a.k_TmC.data(), s.a.v_TmC.data(), s.kv.layer(layer));
  attention(s.pool, s.batch, s.kv.shape(), s.model.query_heads(), s.a.q_TnC.data(), s.kv.layer(layer),
            s.a.attended_TnC.data());
  s.a.products.clear();
  for (std::size_t g = 0; g < G; ++g)
    s.a.products.push_back({.x = s.a.attended_TnC.data() + g * (n_width / G),
                            .x_stride = n_width,
                            .rows = nullptr,
                            .count = s.T,
                            .w = &w.streams[g].o,
                            .y = s.a.term_GTD.data() + g * s.T * D,
                            .y_stride = D});
  multiply(s.pool, s.a.products);
}

// Router scores for all E experts (every rank computes them all, from the same r), then the choice of K.
void route(Step& s, const LayerWeights& w) {
  const ModelConfig& c = s.model.config;
  const std::size_t D = c.hidden_size;
  if (!c.dense()) {
    const Product scores{.x = s.a.input_GTD.data(),
                         .x_stride = D,
                         .rows = nullptr,
                         .count = s.T,
                         .w = &w.router_ED,
                         .y = s.a.scores_TE.data(),
                         .y_stride = static_cast<std::size_t>(c.num_experts)};
    multiply(s.pool, {&scores, 1});
  }
  select_experts(s.pool, c, s.a.scores_TE.data(), s.T, s.a.routing);
}

// output_RD = FFN_e(x) for the rows of each local expert e: all experts' rows in one parallel pass for gate and up, and
// one for down.
void multiply_experts(Step& s, const LayerWeights& w, const float* x, std::size_t x_stride, const Routing& routing) {
  const std::size_t D = s.model.config.hidden_size, f = s.model.share().expert_width.size();
  const std::vector<std::int32_t>& begin = routing.expert_begin;
  const auto products = [&](auto&& make) {
    s.a.products.clear();
    for (std::size_t e = 0; e < w.experts.size(); ++e)
      if (const int count = begin[e + 1] - begin[e]; count > 0) s.a.products.push_back(make(e, begin[e], count));
    return std::span<const Product>(s.a.products);
  };
  multiply_swiglu(s.pool, products([&](std::size_t e, std::size_t row, int count) {
                    return Product{.x = x,
                                   .x_stride = x_stride,
                                   .rows = routing.token_R.data() + row,
                                   .count = count,
                                   .w = &w.experts[e].gate_up,
                                   .y = s.a.hidden_Rf.data() + row * f,
                                   .y_stride = f};
                  }),
                  static_cast<int>(f));
  multiply(s.pool, products([&](std::size_t e, std::size_t row, int count) {
             return Product{.x = s.a.hidden_Rf.data() + row * f,
                            .x_stride = f,
                            .rows = nullptr,
                            .count = count,
                            .w = &w.experts[e].down,
                            .y = s.a.output_RD.data() + row * D,
                            .y_stride = D};
           }));
}

// update_h = M_h = sum of w_e * FFN_e(norm(r)) over the selected experts of each local stream.
void run_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const Share& share = s.model.share();
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::size_t D = c.hidden_size;
  const float* input_TD = s.a.input_GTD.data();
  norm_streams(s, w.expert_norm_D, 1, false);
  route(s, w);
  if (s.a.exchange) {
    ExpertExchange& x = *s.a.exchange;
    dispatch_rows(x, s.grid.members(), s.pool, c, share, s.a.routing, input_TD, s.T);
    multiply_experts(s, w, x.arrived, x.arrived_stride, x.routing);
    return return_sums(x, s.grid.members(), s.pool, c, s.a.routing, s.a.output_RD.data(), s.T, s.a.update_GTD.data());
  }
  sort_rows(share, s.T, s.a.routing);
  multiply_experts(s, w, input_TD, D, s.a.routing);
  const int G = share.streams(), per_stream = share.experts.size() / G;
  for (int g = 0; g < G; ++g) {
    const int first = share.experts.begin + g * per_stream;
    combine_experts(s.pool, c, s.a.routing, {first, first + per_stream}, s.a.output_RD.data(), s.T,
                    s.a.update_GTD.data() + g * s.T * D);
  }
}

// After the last attention nothing looks at rows that are not sampled: drop them.
void keep_sampled_rows(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.T = s.batch.num_sampled();
  for (int i = 0; i < s.T; ++i) {
    const float* row = s.a.r_TD.data() + s.batch.sampled_rows[i] * D;  // ascending: never before its new place
    std::copy(row, row + D, s.a.r_TD.data() + i * D);
  }
}

// Each rank scores its rows of the token head, for its sequences.
void score_vocabulary(Step& s) {
  norm_streams(s, s.model.weights.final_norm_D, 1, false);
  const Product head{.x = s.a.input_GTD.data(),
                     .x_stride = static_cast<std::size_t>(s.model.config.hidden_size),
                     .rows = nullptr,
                     .count = s.T,
                     .w = &s.model.weights.head_vD,
                     .y = s.a.logits_Sv.data(),
                     .y_stride = static_cast<std::size_t>(s.model.share().vocab.size())};
  multiply(s.pool, {&head, 1});
}

// Rank 0 receives all scores and puts them side by side.
std::span<const float> gather_logits(Step& s) {
  const Placement& placement = s.model.placement;
  const std::size_t S = s.whole.num_sampled(), V = s.model.config.vocab_size;
  if (placement.ranks.size() == 1) return {s.a.logits_Sv.data(), S * V};
  const std::vector<int> sampled = sampled_by_owner(s.whole, placement.members);
  std::vector<std::size_t> counts, first_row(placement.members);
  for (const Share& share : placement.ranks)
    counts.push_back(static_cast<std::size_t>(sampled[share.member]) * share.vocab.size());
  s.grid.world().gather({s.a.logits_Sv.data(), counts[s.model.rank]}, counts, s.a.gathered.data());
  if (s.model.rank != 0) return {};
  if (placement.group_ranks() == 1) return {s.a.gathered.data(), S * V};  // whole rows, in the order of their owners
  std::exclusive_scan(sampled.begin(), sampled.end(), first_row.begin(), std::size_t{0});
  const float* block = s.a.gathered.data();
  for (const Share& share : placement.ranks)
    for (int i = 0; i < sampled[share.member]; ++i, block += share.vocab.size())
      std::copy(block, block + share.vocab.size(),
                s.a.logits_SV.data() + (first_row[share.member] + i) * V + share.vocab.begin);
  return {s.a.logits_SV.data(), S * V};
}

}  // namespace

std::span<const float> forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                               ThreadPool& pool) {
  FOE_CHECK(batch.num_tokens() <= a.max_tokens && batch.num_sampled() <= a.max_sampled,
            "{} tokens of {}, {} sampled of {}", batch.num_tokens(), a.max_tokens, batch.num_sampled(), a.max_sampled);
  const ModelConfig& c = model.config;
  if (a.exchange) a.own = part_of(batch, model.share().member);
  const Batch& mine = a.exchange ? a.own : batch;
  Step s{model, mine, batch, kv, a, grid, pool, mine.num_tokens()};
  if (model.share().idle()) return gather_logits(s);
  embed(s);
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    // From the second layer on, a federated stream has an update that the others have not seen.
    const bool own_updates = c.federated() && layer > 0;
    LayerClock clock(grid.world(), a.layers[layer]);
    norm_streams(s, model.weights.layers[layer].attention_norm_D, own_updates ? model.share().streams() : 1,
                 own_updates);
    attend(s, layer, !own_updates);
    if (own_updates) add_updates_to_terms(s);
    sum_into_residual(s, a.term_GTD.data(), own_updates ? c.sync_scale() : 1.0f);
    clock.add_to(&LayerStats::attention_s);

    if (layer + 1 == c.num_hidden_layers) keep_sampled_rows(s);
    run_experts(s, layer);
    if (!c.federated()) sum_into_residual(s, a.update_GTD.data(), 1.0f);
    clock.add_to(&LayerStats::experts_s);
    const Routing& sorted = a.exchange ? a.exchange->routing : a.routing;
    a.layers[layer].rows = sorted.expert_begin.back();
    a.load.add(layer, c, model.share(), a.routing, s.T, sorted);
  }
  if (c.federated()) sum_into_residual(s, a.update_GTD.data(), c.sync_scale());
  score_vocabulary(s);
  return gather_logits(s);
}

}  // namespace foe
