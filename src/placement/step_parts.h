// How a step runs: in which parts, which member runs which rows of them, through which stages, and what ranks exchange
// at the end of each stage. Pure functions, for the forward pass and for whoever says what it sends.
#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/model_config.h"
#include "placement/placement.h"

namespace foe {

// With --overlap, batches of at least so many tokens run as two halves. In smaller batches the exchanges are too short
// for what halving costs: the weights of every expert are read twice.
inline constexpr int kOverlapTokens = 128;

// A step's micro-batches run one after the other, and each in so many halves, which run beside each other.
struct StepParts {
  int micro_batches = 1, halves = 1;

  std::int64_t count() const { return std::int64_t{1} * micro_batches * halves; }
};
StepParts step_parts(const ModelConfig& config, const Placement& placement, const Batch& batch, bool overlap);

// Returns the rows of part `i` by the member that runs them, ordered by their owners and then by their rows. Where
// members own sequences, each cuts its own rows into as many even parts; where they split them, the batch is cut, and
// the rows of a part are dealt (deal.h).
std::vector<Piece> pieces_of_part(const ModelConfig& config, const Placement& placement, const Batch& batch,
                                  const StepParts& parts, std::int64_t i);

enum class StageKind {
  kKeys,       // where members split sequences: up to the keys and values of the step's rows
  kAttention,  // after kKeys only what follows them
  kExperts,
  kDispatch,  // where rows travel to experts: up to the rows
  kReturn,    // and from the rows that have come
  kLastSum,   // of a federated model
  kScoring,   // the token head
};
struct StepStage {
  StageKind kind;
  int layer;
};
// Returns the stages of the layers [layers.begin, layers.end) on a rank, with those behind the last layer. In a stage
// a rank computes, and ends in an exchange or in none.
std::vector<StepStage> step_stages(const ModelConfig& config, const Placement& placement, Range layers);

enum class StageExchange {
  kNone,
  kAttentionSum,  // of one vector for each row, over Placement::attention_begin
  kExpertSum,     // the same over Placement::expert_begin of the layer
  kKeys,
  kDispatch,
  kReturn,
};
StageExchange exchange_of(const ModelConfig& config, const Placement& placement, const StepStage& stage);
// Whether attention sums the squares of queries and keys over ranks, two floats for each row in f32, before it attends.
bool sums_squares(const ModelConfig& config, const Placement& placement);

// Returns the ranks that add together in the sums of `rank`, itself included, in the order of their terms. It must not
// be idle.
std::vector<int> ranks_of_sums(const Placement& placement, int rank);

}  // namespace foe
