// What a run's decode steps took, beside what the machine's roofline allows.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "costs/roofline.h"
#include "engine/engine.h"

namespace foe {

// Of the steps in which every sequence brought one token and wanted its logits, as all do but those with prompts.
struct DecodeSteps {
  std::int64_t steps = 0, tokens = 0;
  std::int64_t positions = 0;  // that all tokens attended to
  double seconds = 0;          // that the steps took
  double least_seconds = 0;    // that the roofline gives each of them, experts touched in expectation
  std::int64_t touched = 0;    // experts that had rows, over all steps and layers
  double expected_touched = 0;
  double read_bytes_per_s = 0;  // of memory, summed over the steps: it changes where others share it

  double share_of_roofline() const { return least_seconds / seconds; }
};

// Watches an engine whose ranks are all on one machine. Rank 0, while the others follow.
class DecodeWatch {
 public:
  // Measures the limits, and memory's speed again every few steps: with as many threads as all ranks have together but
  // not more than this machine has cores, and on all of these, whatever rank 0 is bound to.
  explicit DecodeWatch(Engine& engine);

  // After each step.
  void count(double step_seconds);

  const DecodeSteps& steps() const { return steps_; }
  MachineLimits limits() const;  // the mean over the steps

 private:
  Engine& engine_;
  MachineLimits limits_;
  WeightFormats weights_;
  DecodeSteps steps_;
  std::vector<std::vector<std::int64_t>> rows_LE_;  // of each expert, until now
};

void print_decode(const DecodeWatch& watch);
nlohmann::json to_json(const DecodeWatch& watch);

}  // namespace foe
