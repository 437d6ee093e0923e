// foe inspect --roofline: how many tokens/s decoding can reach on this machine, whatever the engine does.
#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "costs/roofline.h"

namespace foe {

struct RooflineFlags {
  std::vector<int> batches{1, 4, 16, 64};
  int context = 256;
  int threads = 0;  // that measure the limits; 0: all that the process may use
};

struct RooflinePoint {
  int sequences = 0;
  double experts_touched = 0;  // in a layer
  StepWork work;               // of all ranks
  double seconds = 0;

  double tokens_per_s() const { return sequences / seconds; }
};

struct Roofline {
  int context = 0, threads = 0;
  MachineLimits limits;
  std::vector<RooflinePoint> points;
};

// Measures the limits. Ranks share one machine: what they do together is held against its limits. Throws Error for a
// context that the model does not have.
Roofline measure_roofline(const ModelConfig& config, const Placement& placement, const WeightFormats& weights,
                          KvType kv, const RooflineFlags& flags);

void print_roofline(const Roofline& roofline);
nlohmann::json to_json(const Roofline& roofline);

}  // namespace foe
