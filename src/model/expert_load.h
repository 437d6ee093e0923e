// How evenly the experts' work is spread over experts and ranks. Each rank counts as it runs; rank 0 gathers the counts
// and computes figures from them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/model_config.h"
#include "model/routing.h"
#include "placement/placement.h"

namespace foe {

// The counts of one rank over all of its forward passes. A row is a pair of a token and one of its selected experts.
struct ExpertLoad {
  std::vector<std::vector<std::int64_t>> rows_LE;  // [layers][experts that the rank holds]: the rows that each has run
  // How many experts of its own groups the rank's own tokens have selected, not counting dense layers, and how many of
  // those the rank holds itself. In plans without owners every token is on every rank; then a rank counts the rows that
  // it runs in both.
  std::int64_t selected = 0;
  std::int64_t local = 0;

  // Counts one layer. `own` has the selections of the rank's own `tokens`, and `sorted` the rows that the rank runs, of
  // its own tokens and of others. If rows do not travel, both are the same object.
  void add(int layer, const ModelConfig& config, const Share& share, const Routing& own, int tokens,
           const Routing& sorted);
};

// Collective. Returns the counts of all ranks, by rank, on rank 0, and nothing on the others.
std::vector<ExpertLoad> gather_load(Communicator& comm, const ModelConfig& config, const Placement& placement,
                                    const ExpertLoad& mine);

// Returns the share of selections whose expert was on the token's own rank, so that no row had to travel: from 0 to 1,
// and 1 if there were no selections.
double local_activation_rate(std::span<const ExpertLoad> ranks);

// Returns the rows of each of the model's experts, [layers][experts]. If several ranks hold parts of one expert (a
// dense model in plan tp), each row counts once.
std::vector<std::vector<std::int64_t>> rows_by_expert(const ModelConfig& config, const Placement& placement,
                                                      std::span<const ExpertLoad> ranks);

// Returns the largest value divided by the median (of an even number of values, the mean of the two in the middle). If
// the median is 0, it returns 1 if all values are 0, and infinity otherwise.
double fullest_over_median(std::vector<double> values);

// Returns how many times as many rows the fullest rank runs as the median rank: the mean over layers that had rows.
// In each layer, ranks without experts are left out.
double row_balance(std::span<const ExpertLoad> ranks);

}  // namespace foe
