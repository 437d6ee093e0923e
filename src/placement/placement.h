// Which rank holds what: pure functions of the model and the number of ranks.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

enum class Plan {
  kTp,   // heads and every expert's hidden width split over the ranks; two sums over ranks per layer
  kFoe,  // whole groups of a federated model on each rank; one sum over groups per layer
  kEp,   // whole sequences and whole experts on each rank; tokens travel to their experts and back in every layer
};

const char* to_string(Plan plan);
// Throws Error for anything but "tp", "foe" and "ep".
Plan parse_plan(const std::string& name);
// The plan that fits the model: foe where it is federated, else tp.
Plan default_plan(const ModelConfig& config);

struct Placement {
  Plan plan = Plan::kTp;
  std::vector<Share> ranks;
  // Rank r owns terms [sum_begin[r], sum_begin[r + 1]) of every sum: its groups, or itself. Plan ep makes none.
  std::vector<int> sum_begin;
};

// Shares are as even as they can be, larger ones first. Throws Error where the plan does not fit the model, or has no
// work for some rank.
Placement make_placement(const ModelConfig& config, Plan plan, int ranks);

}  // namespace foe
