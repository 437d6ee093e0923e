// Pools the hidden states of prompts, whose rows come in the order of their positions, in one step or in several.
//
// Shape letter: D model width.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "sched/scheduler.h"

namespace foe {

// One thread.
class StatePool {
 public:
  // Takes the state of a row of a request with pooling. Returns what is pooled, once the row is the last one of the
  // prompt; before that nothing. A mean is added in double, row after row, and rounded at the end: how rows come in
  // steps changes no bit.
  std::vector<float> take(const SampledRow& row, std::span<const float> state_D);
  // Drops what is kept for a request that has ended.
  void forget(std::int64_t id) { sums_.erase(id); }

 private:
  struct Sum {
    std::vector<double> of_D;
    int rows = 0;
  };
  std::unordered_map<std::int64_t, Sum> sums_;  // by the id of requests that want a mean
};

}  // namespace foe
