// Time of one forward pass against the number of tokens in it, for every way to split a model over ranks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/dtype.h"
#include "core/model_config.h"
#include "model/forward.h"

namespace foe {

// One way of running a shape: the ladder from expert parallelism to federation.
struct Rung {
  std::string name;
  Plan plan;
  Dispatch dispatch;
  bool grouped;    // experts selected group by group
  bool federated;  // and the groups synchronised once per layer
};
const std::vector<Rung>& ladder();

// The shape as this rung runs it: groups and residual changed, all else kept.
ModelConfig config_of(const Rung& rung, ModelConfig shape, int groups);

// What the batch of a measurement is.
enum class Load {
  kOnePrompt,    // one sequence, from its first token
  kManyPrompts,  // sequences of 128 tokens (or fewer), from their first token
  kDecode,       // one token each of sequences that have 256 positions
};
const char* to_string(Load load);
Load parse_load(const std::string& name);

struct LatencyOptions {
  ModelConfig shape;  // its layers are those that run
  int groups = 1;     // of the rungs that have them
  DType dtype = DType::kBF16;
  std::vector<Rung> rungs;
  std::vector<Load> loads;
  std::vector<int> tokens;
  int repetitions = 6;
  double most_seconds = 20;  // for the repetitions of one rung's point: at least two are made
  int threads = 1;
  ExchangeOptions exchange;  // of all rungs, but each has its own dispatch
};

// Medians over repetitions on rank 0, and for the spread the fastest and slowest.
struct LatencyPoint {
  std::string rung;
  Load load;
  int tokens;
  int repetitions;
  double seconds, fastest, slowest;
  // Of one typical layer in the median pass, seconds as means over ranks: own arithmetic, moving data, waiting for
  // others.
  double attention = 0, experts = 0, moving = 0, waiting = 0;
  double bytes = 0;        // that all ranks sent
  double row_balance = 0;  // rows of experts on the fullest rank / on the median rank

  double layer_seconds() const { return attention + experts + moving + waiting; }
};

// Collective. Rank 0 gets the points, and `progress` is called there after each of them.
std::vector<LatencyPoint> bench_latency(const LatencyOptions& options, Communicator& comm,
                                        const std::function<void(const LatencyPoint&)>& progress);

}  // namespace foe
