// What the parts of a forward pass work on.
#pragma once

#include <vector>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "core/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/rank_grid.h"

namespace foe {

// The step, or half of it.
struct Step {
  const Model& model;
  const Batch& batch;  // what runs here: of the step, or its half, the sequences that this rank owns
  KvCache& kv;
  Activations& a;
  RankGrid& grid;
  ThreadPool& pool;
  int T;  // rows of r: the batch's tokens, and after the last attention only those that are sampled
  RankGrid::Ticket pending = 0;  // the exchange that goes on
  CommCounter exchanged = {};    // by what was finished

  // M_h of a local stream.
  float* update_TD(int stream) {
    return a.update_GTD.data() + static_cast<std::size_t>(stream) * T * model.config.hidden_size;
  }
};

// What of the batch this rank runs: all of it, or its own sequences; in two halves where they can overlap.
std::vector<Step> make_steps(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                             ThreadPool& pool);

// Adds the time of its scope to a part's arithmetic and, what exchanges took of it, to these.
class PartClock {
 public:
  PartClock(Step& s, PartStats& stats) : step_(s), stats_(stats) { step_.exchanged = {}; }
  ~PartClock() {
    const CommCounter& exchanged = step_.exchanged;
    stats_.arithmetic_s += seconds_since(start_) - exchanged.seconds;
    stats_.moving_s += exchanged.seconds - exchanged.waiting_s;
    stats_.waiting_s += exchanged.waiting_s;
    stats_.bytes += exchanged.bytes;
  }

 private:
  Step& step_;
  PartStats& stats_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace foe
