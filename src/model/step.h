// What the functions of a forward pass work on, and what several of them do.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "model/activations.h"
#include "model/input_observer.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/rank_grid.h"

namespace foe {

// A step or, if the halves of a batch overlap, one half of it, or of a micro-batch. Refers to what forward() was called
// with, but owns its part of the batch. Exchanges refer to it.
struct Step {
  const Model& model;
  Batch all;    // where members split sequences: the rows of all of them, by owner; else empty
  Batch batch;  // the part of the batch that this rank runs
  KvCache& kv;
  Activations& a;
  StepState& state;
  RankGrid& grid;
  ThreadPool& pool;
  int T;             // rows of r: the tokens of the batch, and after the last attention only the sampled ones
  int first_scored;  // where its rows begin in the rank's logits
  int first_state;   // and in the rank's states, for those that are wanted
  int first_token;   // how many tokens the micro-batches before have had: where its rows begin in a record
  std::optional<RankGrid::Ticket> pending = {};  // the exchange that was started
  CommCounter exchanged = {};                    // what the finished exchanges have sent
  InputObserver* observer = nullptr;

  // Returns the update M_h of a local stream.
  float* update_TD(int stream) {
    return state.update_GTD.data() + static_cast<std::size_t>(stream) * T * model.config.hidden_size;
  }
  // How many rows a layer's experts read: r or, where groups have not synced, r + M_h for each local stream h.
  int expert_rows(int layer) const {
    return model.config.syncs(layer) ? T : static_cast<int>(model.share().streams()) * T;
  }
  // Where what a layer's experts add is computed: in place of the updates, or in a layer that does not sync beside
  // them.
  float* added_by_experts(int layer) {
    return model.config.syncs(layer) ? state.update_GTD.data() : state.added_GTD.data();
  }
};

// Returns what this rank runs of the batch, all of it, the sequences that it owns, or the rows that it is dealt: the
// micro-batches in their order, each of which is one step or two halves (step_parts()).
std::vector<std::vector<Step>> make_steps(const Model& model, const Batch& batch, KvCache& kv, Activations& a,
                                          RankGrid& grid, ThreadPool& pool);

// The rows of a batch in the order of the members that run them, each member's in the order in which it does.
struct RowsByMember {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> begin;  // [members + 1] where each member's rows begin
};
RowsByMember rows_by_member(const Model& model, const Batch& batch, const Activations& a);

// input = norm(r) for some of the rows or, with `own_updates` streams, norm(r + M_h) for each of these streams h. A
// block that reads r itself has no weight: then it is r, or r + M_h.
void norm_rows(Step& s, std::span<const float> weight_D, Range rows, int own_updates = 0);
// Shows the observer, if there is one, what matrices multiply.
inline void show(Step& s, const InputPlace& place, const SeenRows& rows) {
  if (s.observer) s.observer->see(place, rows);
}

// What a block adds to r: x = factor * norm(x), without a norm if there is no weight, for so many rows of D floats.
void finish_output(Step& s, std::span<const float> weight_D, double factor, int rows, float* x);
// r += scale * sum
void add_to_residual(Step& s, const float* sum_TD, float scale);

// Starts the sum over all ranks' partial sums [P, T, D]. The result replaces the first of them; the others are
// undefined then.
void begin_sum(Step& s, const SumPlan& sums, float* partials_PTD);
// Starts the exchange of the messages that are packed in s.state.exchange.
void begin_messages(Step& s);
// Waits for the exchange that was started, if there is one.
void finish_exchange(Step& s);

}  // namespace foe
