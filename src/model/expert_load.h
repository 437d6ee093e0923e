// How the experts' work is spread over experts and ranks: counted by each rank as it runs, and what follows from the
// counts of all ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/model_config.h"
#include "model/routing.h"
#include "placement/placement.h"

namespace foe {

// One rank's counts, of all forward passes so far. A row is a (token, selected expert) pair.
struct ExpertLoad {
  int experts = 0;                    // that the rank holds
  std::vector<std::int64_t> rows_Le;  // [layers][experts]: rows that each of them has run
  // Experts that the rank's own tokens have selected, of its own groups, and those of them that it holds itself. Where
  // every token is on every rank and none travels, what a rank runs is its own.
  std::int64_t selected = 0;
  std::int64_t local = 0;

  std::span<const std::int64_t> rows(int layer) const { return std::span(rows_Le).subspan(layer * experts, experts); }

  // Counts one layer: what the rank's own tokens select, and the rows of them and of other ranks' that it runs. If
  // tokens do not travel these are one Routing.
  void add(int layer, const ModelConfig& config, const Share& share, const Routing& own, int tokens,
           const Routing& sorted);
};

// Collective: rank 0 gets everyone's, by rank.
std::vector<ExpertLoad> gather_load(Communicator& comm, const ModelConfig& config, const Placement& placement,
                                    const ExpertLoad& mine);

// The share of selections that were resolved on the token's own rank, which needs no exchange; 1 where there were none.
double local_activation_rate(std::span<const ExpertLoad> ranks);

// Rows of each of the model's experts, by layer. Where every rank holds a part of every expert (plan tp) each row
// counts once.
std::vector<std::vector<std::int64_t>> rows_by_expert(const ModelConfig& config, const Placement& placement,
                                                      std::span<const ExpertLoad> ranks);

// The fullest over the median, which for an even number is the mean of the two in the middle; 1 where all are 0, and
// infinity where only the median is.
double fullest_over_median(std::vector<double> values);

// Rows on the fullest rank over rows on the median rank, the mean over layers that had any. Ranks without experts do
// not count.
double row_balance(std::span<const ExpertLoad> ranks);

}  // namespace foe
