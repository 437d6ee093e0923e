// What an engine has done so far and is doing now, as plain numbers for metrics and benchmarks.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "sched/stats.h"

namespace foe {

struct EngineStats {
  SchedulerStats scheduler;
  std::vector<CommCounters> comm;                      // by rank: what each has sent
  std::vector<std::vector<std::int64_t>> expert_rows;  // [layers][experts]: rows that each expert has run
  std::vector<std::vector<std::int64_t>> rank_rows;    // [layers][ranks]: rows that each rank's experts have run
  double local_activation_rate = 1;                    // the share of selections resolved on the token's own rank
};

// Called on rank 0 while the other ranks are in Engine::follow(). The exchange is not counted.
class Engine;
EngineStats collect_stats(Engine& engine);

}  // namespace foe
