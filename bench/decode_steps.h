// Compares the time of decode steps with the machine's roofline.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "costs/roofline.h"
#include "engine/engine.h"

namespace foe {

// Totals of the decode steps: those in which every sequence had one token and wanted its logits.
struct DecodeSteps {
  std::int64_t steps = 0, tokens = 0;
  std::int64_t positions = 0;  // how many positions all tokens attended to
  double seconds = 0;          // the time of the steps
  double least_seconds = 0;    // the least time by the roofline, with the expected number of experts touched
  std::int64_t touched = 0;    // how many experts had rows, over all steps and layers
  double expected_touched = 0;
  double read_bytes_per_s = 0;  // the memory's speed, summed over steps, as it changes if others use it

  double share_of_roofline() const { return least_seconds / seconds; }
};

// Watches an engine whose ranks are all on one machine. Used on rank 0, while the others are in Engine::follow().
class DecodeWatch {
 public:
  // Measures the limits of the machine; count() measures the memory's speed again every few steps. This uses as many
  // threads as all ranks have together, but at most as many as there are cores, on all cores, whatever rank 0 is bound
  // to.
  explicit DecodeWatch(Engine& engine);

  // To be called after each step.
  void count(double step_seconds);

  const DecodeSteps& steps() const { return steps_; }
  MachineLimits limits() const;  // with the mean of the memory's speed over the steps

 private:
  Engine& engine_;
  MachineLimits limits_;
  WeightFormats weights_;
  DecodeSteps steps_;
  std::vector<std::vector<std::int64_t>> rows_LE_;  // the rows of each expert so far
};

void print_decode(const DecodeWatch& watch);
nlohmann::json to_json(const DecodeWatch& watch);

}  // namespace foe
