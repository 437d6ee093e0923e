// Shape letters: T tokens, D model width, E experts, K selected experts, R rows sorted by expert.
#include "model/experts_block.h"

#include "kernels/rows/rows.h"
#include "model/affine.h"
#include "model/attention_block.h"
#include "model/products.h"
#include "model/routes.h"

namespace foe {
namespace {

// What the rank's parts have together, where the rows of a layer's experts are of one group each.
std::vector<Range> as_one(const Step& s, int layer, const std::vector<Range>& parts) {
  if (s.model.config.syncs(layer) || parts.empty()) return parts;
  return {{parts.front().begin, parts.back().end}};
}

// Computes the router's scores of all E experts, on every rank from the same r, and selects K. Where groups have not
// synced, each does so from its own r + M_h, and keeps those of the K that are its own.
void route(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const ExpertTable table = expert_table(s.model.config, layer);
  const int rows = s.expert_rows(layer);
  float* scores_TE = s.a.experts.scores_TE.data();
  if (!s.model.config.experts(layer).dense()) linear(s, input_rows(s, rows), w.router_ED, scores_TE);
  if (!w.router_bias_E.empty())
    s.pool.parallel_for(rows, [&](std::size_t t) {
      add_to(scores_TE + t * table.columns(), w.router_bias_E.data(), w.router_bias_E.size());
    });
  record_scores(s, layer);
  const Controls<float> controls{.selection_bias_E = if_any(w.selection_bias_E)};
  select_experts(s.pool, table, selection(s.model.config, layer), controls, scores_TE, rows, s.state.routing);
  if (s.model.config.syncs(layer))
    replay_and_record(s, layer);
  else
    keep_own_group(table, s.T, s.model.share().groups.begin, rows, s.state.routing);
}

// affine_h = what affine experts add to M_h. They are on every rank, and need neither rows nor an exchange.
void run_affine(Step& s, int layer) {
  const AffineInputs in{s.a.experts.scores_TE.data(), s.a.products.input_TD.data(),
                        s.model.weights.layers[layer].constants_AD.data()};
  const std::vector<Range> parts = as_one(s, layer, s.model.layers[layer].affine_parts);
  sum_affine(s.pool, expert_table(s.model.config, layer), s.state.routing, in, parts, s.expert_rows(layer),
             s.model.config.hidden_size, s.state.affine_GTD.data());
}

// to += from, the rows of all streams
void add_of_streams(Step& s, std::size_t streams, const float* from_GTD, float* to_GTD) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(streams * s.T, [&](std::size_t row) { add_to(to_GTD + row * D, from_GTD + row * D, D); });
}

// Leaves the input of the experts in input_TD.
void norm_and_route(Step& s, int layer) {
  const int own_updates = s.model.config.syncs(layer) ? 0 : s.model.share().streams();
  norm_rows(s, s.model.weights.layers[layer].expert_norm_D, {0, s.T}, own_updates);
  route(s, layer);
  if (!s.model.layers[layer].affine_parts.empty()) run_affine(s, layer);
}

// Counts the selections of the rank's own tokens, and the rows that it runs.
void count_rows(Step& s, int layer, const Routing& sorted) {
  s.a.stats.layers[layer].rows += sorted.expert_begin.back();
  s.a.stats.load.add(layer, s.model.config, s.model.share(), s.state.routing, s.expert_rows(layer), sorted);
}

}  // namespace

void begin_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const LayerSums& sums = s.model.layers[layer];
  Routing& routing = s.state.routing;
  norm_and_route(s, layer);
  const int rows = s.expert_rows(layer);
  sort_rows(s.model.share().experts(layer), rows, routing);
  count_rows(s, layer, routing);
  if (c.experts(layer).dense()) {
    multiply_dense(s, layer);
  } else {
    multiply_experts(s, layer, input_rows(s, rows), routing);
    combine_experts(s.pool, expert_table(c, layer), routing, as_one(s, layer, sums.expert_parts),
                    s.a.experts.output_RD.data(), rows, c.hidden_size, s.added_by_experts(layer));
  }
  if (!c.federated()) begin_sum(s, sums.experts, s.update_TD(0));
}

void finish_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const BlockConfig& block = c.experts_block(layer);
  const std::size_t streams = s.model.share().streams();
  float* added = s.added_by_experts(layer);
  if (const auto& affine = s.model.layers[layer].affine_parts; !affine.empty())
    add_of_streams(s, affine.size(), s.state.affine_GTD.data(), added);
  if (block.parallel && !c.federated()) add_attention(s, layer);
  finish_output(s, s.model.weights.layers[layer].expert_output_norm_D, block.residual_factor,
                static_cast<int>(streams) * s.T, added);
  if (!c.federated()) add_to_residual(s, added, 1.0f);
  if (!c.syncs(layer)) add_of_streams(s, streams, added, s.update_TD(0));
}

void begin_dispatch(Step& s, int layer) {
  norm_and_route(s, layer);
  pack_rows(*s.state.exchange, layer, s.pool, s.state.routing, s.a.products.input_TD.data(), s.T);
  begin_messages(s);
}

void finish_dispatch(Step& s, int layer) {
  take_rows(*s.state.exchange, s.pool);
  count_rows(s, layer, s.state.exchange->routing);
}

void begin_return(Step& s, int layer) {
  ExpertExchange& x = *s.state.exchange;
  multiply_experts(s, layer, {x.arrived, x.arrived_stride, x.rows, x.hidden_size}, x.routing);
  pack_sums(x, s.pool, s.a.experts.output_RD.data());
  begin_messages(s);
}

void finish_return(Step& s, int layer) {
  take_sums(*s.state.exchange, s.pool, s.state.routing, s.T, s.added_by_experts(layer));
  finish_experts(s, layer);
}

}  // namespace foe
