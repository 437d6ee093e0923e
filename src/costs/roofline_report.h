// `foe inspect --roofline`: the most tokens/s that decoding can reach on this machine.
#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "costs/roofline.h"

namespace foe {

struct RooflineFlags {
  std::vector<int> batches{1, 4, 16, 64};
  int context = 256;
  int threads = 0;  // how many threads measure the limits; 0: all that the process may use
};

struct RooflinePoint {
  int sequences = 0;
  double experts_touched = 0;  // in a layer: the mean
  StepWork work;               // of all ranks
  double seconds = 0;

  double tokens_per_s() const { return sequences / seconds; }
};

struct Roofline {
  int context = 0, threads = 0;
  MachineLimits limits;
  std::vector<RooflinePoint> points;
};

// Measures the limits of this machine and computes a point for each batch size. All ranks are taken to share this
// machine, so their work together is compared with its limits. Throws Error for a context that is longer than the
// model's.
Roofline measure_roofline(const ModelConfig& config, const Placement& placement, const WeightFormats& weights,
                          KvType kv, const RooflineFlags& flags);

void print_roofline(const Roofline& roofline);
nlohmann::json to_json(const Roofline& roofline);

}  // namespace foe
