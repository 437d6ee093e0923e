// What the functions of a forward pass work on.
#pragma once

#include <vector>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "core/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/rank_grid.h"

namespace foe {

// A step or, if the halves of a batch overlap, one half of it. Refers to what forward() was called with.
struct Step {
  const Model& model;
  const Batch& batch;  // the part of the batch that this rank runs
  KvCache& kv;
  Activations& a;
  RankGrid& grid;
  ThreadPool& pool;
  int T;  // rows of r: the tokens of the batch, and after the last attention only the sampled ones
  RankGrid::Ticket pending = 0;  // the exchange that was started
  CommCounter exchanged = {};    // what the finished exchanges have sent

  // Returns the update M_h of a local stream.
  float* update_TD(int stream) {
    return a.update_GTD.data() + static_cast<std::size_t>(stream) * T * model.config.hidden_size;
  }
};

// Returns what this rank runs of the batch, all of it or the sequences that it owns: one step or, if a.overlaps(), two
// halves.
std::vector<Step> make_steps(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                             ThreadPool& pool);

// Adds the time of its scope to the stats of a part: the time that exchanges took to moving and waiting, the rest to
// arithmetic.
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
