// What travels to experts on other ranks and back, for given experts and in expectation. `members` are the ranks'
// experts (experts_of_members()).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model_config.h"
#include "placement/expert_nodes.h"

namespace foe {

// For tokens of one owner, given the experts they select (K each, ascending): how many rows go to each member, and how
// many sums come back from it.
struct ExpertTraffic {
  std::vector<std::int64_t> rows, sums;  // by member
};
ExpertTraffic expert_traffic(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch,
                             std::span<const std::int32_t> experts_TK);
// The same for one token, in expectation over selections that are all equally likely.
struct ExpectedTraffic {
  std::vector<double> rows, sums;
};
ExpectedTraffic expected_traffic(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch);

}  // namespace foe
