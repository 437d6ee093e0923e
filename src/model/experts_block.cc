// Shape letters: T tokens, D model width, E experts, K selected experts, R rows sorted by expert.
#include "model/experts_block.h"

#include "kernels/rows/rows.h"
#include "model/affine.h"
#include "model/attention_block.h"
#include "model/products.h"
#include "model/routes.h"

namespace foe {
namespace {

// Computes the router's scores of all E experts, on every rank from the same r, and selects K.
void route(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const ExpertTable table = expert_table(s.model.config, layer);
  float* scores_TE = s.a.experts.scores_TE.data();
  if (!s.model.config.experts(layer).dense()) linear(s, input_rows(s, s.T), w.router_ED, scores_TE);
  if (!w.router_bias_E.empty())
    s.pool.parallel_for(s.T, [&](std::size_t t) {
      add_to(scores_TE + t * table.columns(), w.router_bias_E.data(), w.router_bias_E.size());
    });
  record_scores(s, layer);
  const Controls<float> controls{.selection_bias_E = if_any(w.selection_bias_E)};
  select_experts(s.pool, table, selection(s.model.config, layer), controls, scores_TE, s.T, s.state.routing);
  replay_and_record(s, layer);
}

// affine_h = what affine experts add to M_h. They are on every rank, and need neither rows nor an exchange.
void run_affine(Step& s, int layer) {
  const AffineInputs in{s.a.experts.scores_TE.data(), s.a.products.input_TD.data(),
                        s.model.weights.layers[layer].constants_AD.data()};
  sum_affine(s.pool, expert_table(s.model.config, layer), s.state.routing, in, s.model.layers[layer].affine_parts, s.T,
             s.model.config.hidden_size, s.state.affine_GTD.data());
}

// M_h += affine_h
void add_affine(Step& s, int layer) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(s.model.layers[layer].affine_parts.size() * s.T, [&](std::size_t row) {
    add_to(s.update_TD(0) + row * D, s.state.affine_GTD.data() + row * D, D);
  });
}

// Leaves the input of the experts in input_TD.
void norm_and_route(Step& s, int layer) {
  norm_rows(s, s.model.weights.layers[layer].expert_norm_D, {0, s.T});
  route(s, layer);
  if (!s.model.layers[layer].affine_parts.empty()) run_affine(s, layer);
}

// Counts the selections of the rank's own tokens, and the rows that it runs.
void count_rows(Step& s, int layer, const Routing& sorted) {
  s.a.stats.layers[layer].rows += sorted.expert_begin.back();
  s.a.stats.load.add(layer, s.model.config, s.model.share(), s.state.routing, s.T, sorted);
}

}  // namespace

void begin_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const LayerSums& sums = s.model.layers[layer];
  Routing& routing = s.state.routing;
  norm_and_route(s, layer);
  sort_rows(s.model.share().experts(layer), s.T, routing);
  count_rows(s, layer, routing);
  if (c.experts(layer).dense()) {
    multiply_dense(s, layer);
  } else {
    multiply_experts(s, layer, input_rows(s, s.T), routing);
    combine_experts(s.pool, expert_table(c, layer), routing, sums.expert_parts, s.a.experts.output_RD.data(), s.T,
                    c.hidden_size, s.update_TD(0));
  }
  if (!c.federated()) begin_sum(s, sums.experts, s.update_TD(0));
}

void finish_experts(Step& s, int layer) {
  const ModelConfig& c = s.model.config;
  const BlockConfig& block = c.experts_block(layer);
  if (!s.model.layers[layer].affine_parts.empty()) add_affine(s, layer);
  if (block.parallel) add_attention(s, layer);
  finish_output(s, s.model.weights.layers[layer].expert_output_norm_D, block.residual_factor,
                s.model.share().streams() * s.T, s.update_TD(0));
  if (!c.federated()) add_to_residual(s, s.update_TD(0), 1.0f);
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
  take_sums(*s.state.exchange, s.pool, s.state.routing, s.T, s.update_TD(0));
  finish_experts(s, layer);
}

}  // namespace foe
