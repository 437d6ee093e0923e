// What an engine has done so far, and does: plain numbers for whoever watches it.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "sched/stats.h"

namespace foe {

struct EngineStats {
  SchedulerStats scheduler;
  std::vector<CommCounters> comm;                      // by rank: what it has sent
  std::vector<std::vector<std::int64_t>> expert_rows;  // [layers][experts]: rows that each expert has run
  std::vector<std::vector<std::int64_t>> rank_rows;    // [layers][ranks]: rows that each rank's experts have run
  double local_activation_rate = 1;                    // the share of selections resolved on the token's own rank
};

// On rank 0; the other ranks are in Engine::follow(). Counts nothing itself.
class Engine;
EngineStats collect_stats(Engine& engine);

}  // namespace foe
