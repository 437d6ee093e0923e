// Which rank holds what: pure functions of the model and the number of ranks.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

enum class Plan {
  kTp,   // heads and whole experts split over the ranks, or a dense model's hidden width; two sums over ranks per layer
  kFoe,  // whole groups of a federated model on each rank; one sum over groups per layer. With more ranks than groups,
         // several ranks share a group: each has sequences of its own and some of the experts, and rows travel as in
         // ep, but only among them
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
  int members = 1;  // ranks that share each group, and owners of sequences
  // Of the ranks with the same sequences, ordered by their groups, the r-th owns the terms [begin[r], begin[r + 1]) of
  // a sum. Those of attention's are the blocks of head_blocks(). Those of the experts' are groups in a federated model,
  // the blocks of width_blocks() in a dense one, and otherwise experts, by their expert_tree_index().
  std::vector<int> attention_begin, expert_begin;

  int group_ranks() const { return static_cast<int>(attention_begin.size()) - 1; }
};

// Shares are as even as whole terms of the sums let them be, larger ones first; but plan tp cuts its experts where few
// subtrees of their sum make up a share. Plan foe with more ranks than groups gives each group the same
// number of ranks and leaves what is left over idle. `nodes` says on which node each rank is (all on one if empty): a
// group's ranks are on one node where there is a choice. Throws Error where the plan does not fit the model, or has no
// work for so many ranks.
Placement make_placement(const ModelConfig& config, Plan plan, int ranks, const std::vector<int>& nodes = {});

// The experts of each rank that shares a group with `rank`, in the order of the members.
std::vector<Range> experts_of_members(const Placement& placement, int rank);

}  // namespace foe
