// Measures the time of one forward pass by its number of tokens, for every way to split a model over ranks.
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

// One way to run a shape. The rungs make up a ladder from expert parallelism to federation; pipeline parallelism stands
// beside it.
struct Rung {
  std::string name;
  Plan plan;
  Dispatch dispatch;
  bool grouped;                  // experts are selected in each group
  bool federated;                // and groups are synchronised once per layer
  int stages = 0;                // PlanChoice::stages
  bool split_sequences = false;  // PlanChoice::split_sequences

  // Whether all its ranks run every layer, so that few layers show what a model takes.
  bool in_ladder() const { return plan != Plan::kPp && stages <= 1; }
};
const std::vector<Rung>& all_rungs();
// Returns the rungs with these names; without names, those in the ladder. Throws Error for a name that there is not.
std::vector<Rung> rungs_of(const std::vector<std::string>& names);

// Returns the shape as this rung runs it: only groups and residual change.
ModelConfig config_of(const Rung& rung, ModelConfig shape, int groups);

// The kind of batch that is measured.
enum class Load {
  kOnePrompt,    // prefill of one sequence
  kManyPrompts,  // prefill of sequences of at most 128 tokens
  kDecode,       // decode of sequences that have 256 positions
};
const char* to_string(Load load);
Load parse_load(const std::string& name);

// Returns the batch of a load, whose sequences are shared evenly by `owners` members.
Batch latency_batch(Load load, int tokens, int owners, int vocab_size);

struct LatencyOptions {
  ModelConfig shape;  // with the layers that run
  int groups = 1;     // for the rungs that have groups
  WeightFormat dtype = WeightFormat::kBF16;
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;
  std::vector<Rung> rungs;
  std::vector<Load> loads;
  std::vector<int> tokens;
  int repetitions = 6;
  double most_seconds = 20;  // for all repetitions of a rung's point; there is at least one pass
  int threads = 1;
  ExchangeOptions exchange;          // of all rungs, except for their dispatch
  std::vector<float> router_bias_E;  // added to the scores of all rungs; empty: none
};

// A typical layer. Times are means over ranks, in seconds. In plan pp it is the mean over all layers: a rank has its
// part of them, and what its pass takes longer is waiting.
struct LayerPoint {
  double attention = 0, experts = 0;  // arithmetic
  double moving = 0, waiting = 0;     // in exchanges
  // By how much the arithmetic of the slowest rank exceeds the mean, between exchanges. The other ranks wait for it at
  // least so long, even if that cannot be measured (CommCounter::waiting_s).
  double uneven = 0;
  double bytes = 0;        // sent by all ranks
  double row_balance = 0;  // experts' rows on the fullest rank / on the median rank

  double seconds() const { return attention + experts + moving + waiting; }
};

// Times are those of the layers. The token head, and sending logits to rank 0, are left out, because they depend on the
// vocabulary and on sampling.
struct LatencyPoint {
  std::string rung;
  Load load;
  int tokens;
  int repetitions;
  double seconds, fastest, slowest;  // on rank 0: the median, the least and the most over repetitions
  LayerPoint layer;                  // each value is a median over repetitions
  // The counts of the median pass, by rank.
  std::vector<CommCounters> ranks;
  LoadReport load_report;
};

// Collective. Returns the points on rank 0, where `progress` is called after each of them. Turns that take long are
// announced on standard error, with an estimate of the time that is left.
std::vector<LatencyPoint> bench_latency(const LatencyOptions& options, Communicator& comm,
                                        const std::function<void(const LatencyPoint&)>& progress);

}  // namespace foe
