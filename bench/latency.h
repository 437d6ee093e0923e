// Time of one forward pass against the number of tokens in it, for every way to split a model over ranks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/report.h"
#include "comm/communicator.h"
#include "core/model_config.h"
#include "kernels/formats/weight_format.h"
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
const std::vector<Rung>& all_rungs();

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
  WeightFormat dtype = WeightFormat::kBF16;
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;
  std::vector<Rung> rungs;
  std::vector<Load> loads;
  std::vector<int> tokens;
  int repetitions = 6;
  double most_seconds = 20;  // for the repetitions of one rung's point; a pass that takes longer is made once
  int threads = 1;
  ExchangeOptions exchange;          // of all rungs, but each has its own dispatch
  std::vector<float> router_bias_E;  // the same for all rungs; empty: none
};

// One typical layer, means over ranks, in seconds.
struct LayerPoint {
  double attention = 0, experts = 0;  // their own arithmetic
  double moving = 0, waiting = 0;     // in exchanges
  // By how much the arithmetic of the slowest rank exceeds the mean, between exchanges: so long the others wait for it
  // at least, whether or not what carries the exchange can tell (CommCounter::waiting_s).
  double uneven = 0;
  double bytes = 0;        // that all ranks sent
  double row_balance = 0;  // rows of experts on the fullest rank / on the median rank

  double seconds() const { return attention + experts + moving + waiting; }
};

// Times are those of the layers: without the token head, and without the way of its scores to rank 0, which depends on
// the vocabulary and on who samples.
struct LatencyPoint {
  std::string rung;
  Load load;
  int tokens;
  int repetitions;
  double seconds, fastest, slowest;  // on rank 0: the median over repetitions, and the spread
  LayerPoint layer;                  // medians over repetitions
  // Of the median pass.
  std::vector<CommCounters> ranks;
  LoadReport load_report;
};

// Collective. Rank 0 gets the points, and `progress` is called there after each of them. What takes long is announced
// on standard error, with an estimate of the time left.
std::vector<LatencyPoint> bench_latency(const LatencyOptions& options, Communicator& comm,
                                        const std::function<void(const LatencyPoint&)>& progress);

}  // namespace foe
