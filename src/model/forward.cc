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
// with c = 1/H (group_sync "mean") or 1 ("sum"). A block may have its norm behind it, a factor on what it adds, and it
// may read what the block before it reads (BlockConfig); what it adds is finished where its sum has come together. What
// ModelConfig::reads_updates(), sums_updates() and syncs() say of a layer makes it one of the federations of
// docs/architecture.md, "What blocks read, and when groups sum". Ranks form a grid (model/rank_grid.h): sums go over
// its group axis. If several ranks share a group, each runs the sequences that it owns, or some rows of every sequence
// (then keys and values travel to all of them, model/key_exchange.h), and within the group rows travel to the ranks
// that hold their experts, and sums travel back (model/expert_exchange.h). In plan "ep" the whole model is one such
// group, so nothing is summed over ranks. A "stream" is what one attention reads: a federated model has one for each
// local group, any other model has one.
//
// The blocks are in model/attention_block.cc and model/experts_block.cc. How halves of a step overlap is in
// model/pipeline.cc.
//
// Shape letters: T tokens, D model width, R half the rotating width, S sampled rows, v local part of the vocabulary.
#include "model/forward.h"

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "kernels/rows/rows.h"
#include "model/attention_block.h"
#include "model/experts_block.h"
#include "model/passed_rows.h"
#include "model/pipeline.h"
#include "model/products.h"
#include "model/routes.h"
#include "placement/step_parts.h"

namespace foe {
namespace {

void embed(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(s.T, [&](std::size_t t) {
    float* row = s.state.r_TD.data() + t * D;
    s.model.weights.embedding_VD.read_row(s.batch.tokens[t], row);
    scale_and_cap(row, static_cast<int>(D), static_cast<float>(s.model.config.embedding_factor));
  });
}

// Frequencies may depend on how long a sequence's prompt is, and are then found for each.
void find_angles(Step& s, Angles& angles) {
  const Rotation& r = angles.rotation;
  const bool by_length = r.scaling.by_length() && !s.batch.prompt_lengths.empty();
  const auto find_row = [&](std::size_t t, const RopeFrequencies& frequencies) {
    const std::size_t at = t * (r.width / 2);
    rope_angles(s.batch.positions[t], frequencies, angles.cosines_TR.data() + at, angles.sines_TR.data() + at);
  };
  if (!by_length) return s.pool.parallel_for(s.T, [&](std::size_t t) { find_row(t, angles.frequencies); });
  s.pool.parallel_for(s.batch.num_sequences(), [&](std::size_t q) {
    const RopeFrequencies own = rope_frequencies(r, s.batch.prompt_lengths[q]);
    for (int t = s.batch.sequence_begin[q]; t < s.batch.sequence_begin[q + 1]; ++t) find_row(t, own);
  });
}

// The rows of the first range of layers are embeddings, those of a later one what the range before has left, here or on
// the stage before.
void enter(Step& s, int layer) {
  StepState& state = s.state;
  if (layer == s.model.own_layers().begin) {
    if (layer == 0)
      embed(s);
    else
      receive_rows(s, layer);
    for (Angles& angles : s.state.angles) find_angles(s, angles);
    begin_record(s);
  } else if (layer != state.next_layer || s.T != state.rows) {
    fail("batch: expected to continue with {} rows at layer {}, got {} rows at layer {}", state.rows, state.next_layer,
         s.T, layer);
  }
  state.rows = s.T;
  state.next_layer = 0;
}

// `layer` comes next.
void leave(Step& s, int layer) {
  if (layer < s.model.own_layers().end)
    s.state.next_layer = layer;
  else if (layer < s.model.config.num_layers())
    pass_rows(s, layer);
}

// The last sum of a federated model: r += c * sum_h M_h.
void begin_last_sum(Step& s, int layer) {
  const SumPlan& sums = s.model.layers[layer].experts;
  sums.reduce_own(s.grid.across_groups().rank(), s.update_TD(0),
                  static_cast<std::size_t>(s.T) * s.model.config.hidden_size);
  begin_sum(s, sums, s.update_TD(0));
}

void finish_last_sum(Step& s, int) {
  add_to_residual(s, s.update_TD(0), s.model.config.sync_scale());
}

// Of the rows that are normalised, keeps the states that are wanted. The others, which are to be scored, move to the
// front; returns how many they are.
int take_states(Step& s) {
  const std::size_t D = s.model.config.hidden_size;
  float* rows = s.a.products.input_TD.data();
  float* state = s.a.head.states.data() + s.first_state * D;
  int scored = 0;
  for (int i = 0; i < s.T; ++i) {
    const float* row = rows + i * D;
    if (s.batch.candidates[i] == kWantsState)
      state = std::copy(row, row + D, state);
    else if (i != scored++)
      std::copy(row, row + D, rows + (scored - 1) * D);
  }
  return scored;
}

void score(Step& s, int) {
  const Model& model = s.model;
  norm_rows(s, model.weights.final_norm_D, {0, s.T});
  const int scored = take_states(s);
  const std::size_t v = model.share().vocab.size();
  float* logits_Sv = s.a.head.logits_Sv.data() + s.first_scored * v;
  const Input in = input_rows(s, scored);
  show(s, {ModelInput::kHead}, {in.x, in.stride, nullptr, in.rows, in.depth});
  linear(s, in, model.weights.head_vD, logits_Sv);
  finish_logits(model, s.pool, scored, logits_Sv);
}

// The functions of the stages, each with the stats of the part that it belongs to.
std::vector<Stage> functions_of(const Model& model, Range layers, ForwardStats& stats) {
  const bool split = model.placement.split_sequences;
  std::vector<Stage> stages;
  for (const auto& [kind, layer] : step_stages(model.config, model.placement, layers)) {
    LayerStats& part = stats.layers[layer];
    switch (kind) {
      case StageKind::kKeys:
        stages.push_back({begin_keys, finish_keys, layer, &part.attention});
        break;
      case StageKind::kAttention:
        stages.push_back({split ? begin_attending : begin_attention, finish_attention, layer, &part.attention});
        break;
      case StageKind::kExperts:
        stages.push_back({begin_experts, finish_experts, layer, &part.experts});
        break;
      case StageKind::kDispatch:
        stages.push_back({begin_dispatch, finish_dispatch, layer, &part.experts});
        break;
      case StageKind::kReturn:
        stages.push_back({begin_return, finish_return, layer, &part.experts});
        break;
      case StageKind::kLastSum:
        stages.push_back({begin_last_sum, finish_last_sum, layer, &stats.last_sum});
        break;
      case StageKind::kScoring:
        stages.push_back({score, nullptr, layer, &stats.scoring});
        break;
    }
  }
  return stages;
}

// Runs the batch through those of its layers that this rank has.
void run_layers(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid, ThreadPool& pool,
                InputObserver* observer) {
  const Range own = model.own_layers();
  const Range layers{std::max(batch.layers.begin, own.begin), std::min(batch.layers.end, own.end)};
  if (model.share().idle() || layers.size() <= 0) return;
  std::vector<std::vector<Step>> steps = make_steps(model, batch, kv, a, grid, pool);
  const RankGrid::Scope scope(grid);  // after an Error no exchange may go on that uses them
  std::fill(a.stats.layers.begin(), a.stats.layers.end(), LayerStats{});
  a.stats.last_sum = a.stats.passing = a.stats.scoring = {};
  const std::vector<Stage> stages = functions_of(model, layers, a.stats);
  for (std::vector<Step>& halves : steps) {
    for (Step& s : halves) {
      s.observer = observer;
      enter(s, layers.begin);
    }
    run_stages(halves, stages);
    for (Step& s : halves) leave(s, layers.end);
  }
}

}  // namespace

void begin_forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                   ThreadPool& pool, InputObserver* observer) {
  const int scored = batch.num_sampled() - batch.num_states();
  FOE_CHECK(batch.num_tokens() <= a.max_tokens && scored <= a.max_sampled, "{} tokens of {}, {} scored of {}",
            batch.num_tokens(), a.max_tokens, scored, a.max_sampled);
  run_layers(model, batch, kv, a, grid, pool, observer);
}

Logits end_forward(const Model& model, const Batch& batch, Activations& a, RankGrid& grid, ThreadPool& pool) {
  if (batch.layers.end < model.config.num_layers()) return {};
  const auto start = Clock::now();
  const Logits logits = gather_logits(model, batch, a, pool, grid);
  a.stats.scoring.arithmetic_s += seconds_since(start);
  return logits;
}

Logits forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid, ThreadPool& pool,
               InputObserver* observer) {
  begin_forward(model, batch, kv, a, grid, pool, observer);
  return end_forward(model, batch, a, grid, pool);
}

}  // namespace foe
