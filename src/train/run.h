// A whole training run in its directory: checkpoint.safetensors, metrics.jsonl and, at the end, model/.
#pragma once

#include <atomic>

#include "train/config.h"

namespace foe::train {

struct RunOptions {
  int threads = 0;  // 0: all that this process may use
  // Set from anywhere, also a signal handler: the step under way is finished, a checkpoint written, and the run
  // returns.
  const std::atomic<bool>* stop = nullptr;
  bool evaluate_only = false;  // score the held-out file with what the run directory has, and change nothing
  bool quiet = false;          // nothing on standard output
};

// Trains to the configured number of steps, from the run directory's checkpoint if there is one. Returns false if it
// was stopped before. Throws Error for bad input, a checkpoint of another configuration, or a directory in use.
bool run_training(const TrainConfig& config, const RunOptions& options);

}  // namespace foe::train
