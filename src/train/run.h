// Runs a whole training run in its directory, which has checkpoint.safetensors, metrics.jsonl and, at the end, model/.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "comm/communicator.h"
#include "train/config.h"

namespace foe::train {

struct RunOptions {
  int threads = 0;  // 0: all processors that this process may use
  // May be set from any thread or signal handler. Then the current step is finished, a checkpoint is written, and the
  // run returns. Only that of rank 0 counts.
  const std::atomic<bool>* stop = nullptr;
  bool evaluate_only = false;  // only score the held-out file with the run's checkpoint, and change nothing
  bool quiet = false;          // print nothing on standard output
  // A record of the routes of the training steps that this run makes (trace/route_writer.h); empty: none.
  std::string route_trace = {};
  std::int64_t route_trace_bytes = 0;  // the most bytes of it; 0: any number
  int group_ranks = 1;                 // so many ranks share the groups of a federated model (split.h)
};

// Trains to the configured number of steps, from the checkpoint in the run directory if there is one. Returns false if
// it was stopped before the end. All ranks call this with the same arguments; each reads the tokens, and rank 0 alone
// uses the run directory and the record of routes. Throws Error for bad input, a checkpoint of another configuration, a
// directory in which another run is active, or if a rank has died.
bool run_training(const TrainConfig& config, const RunOptions& options, Communicator& comm);
// The same on one rank.
bool run_training(const TrainConfig& config, const RunOptions& options);

}  // namespace foe::train
