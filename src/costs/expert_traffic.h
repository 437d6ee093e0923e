// How much travels to experts and back under expert parallelism, for given selections and in expectation. `members` has
// a layer's experts of each rank, from experts_of_members().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model_config.h"
#include "placement/expert_nodes.h"

namespace foe {

// The traffic of one owner's tokens: token t has selected experts_J[begin_T[t]] to experts_J[begin_T[t + 1] - 1],
// ascending. How many rows go to each member, itself included, and how many partial sums come back from it.
struct ExpertTraffic {
  std::vector<std::int64_t> rows, sums;  // by member
};
ExpertTraffic expert_traffic(const ExpertTable& table, std::span<const Range> members, Dispatch dispatch,
                             std::span<const std::int32_t> begin_T, std::span<const std::int32_t> experts_J);
// The same for one token in one layer, in expectation if all selections are equally likely.
struct ExpectedTraffic {
  std::vector<double> rows, sums;
};
ExpectedTraffic expected_traffic(const ModelConfig& config, int layer, std::span<const Range> members,
                                 Dispatch dispatch);

}  // namespace foe
