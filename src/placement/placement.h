// Computes which rank holds which part of a model. These are pure functions of the model, the plan, and the number of
// ranks and nodes; docs/architecture.md, "Plans", explains the plans.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

enum class Plan {
  kTp,   // heads and whole experts, or a dense layer's hidden width, are split over the ranks; two sums in every layer
  kFoe,  // each rank has whole groups of a federated model; one sum over groups in every layer. With more ranks than
         // groups, several ranks share a group: each has its own sequences and some of the experts, and rows travel as
         // in ep, but only between these ranks
  kEp,   // each rank has its own sequences and whole experts; rows travel to experts and back in every layer
};

const char* to_string(Plan plan);
// Throws Error for anything but "tp", "foe" and "ep".
Plan parse_plan(const std::string& name);
// Returns the plan that fits the model: foe for a federated model, tp for any other.
Plan default_plan(const ModelConfig& config);

struct Placement {
  Plan plan = Plan::kTp;
  std::vector<Share> ranks;
  int members = 1;  // how many ranks share each group; each of them owns sequences
  // Which rank owns which terms of the sums. Among the ranks with the same sequences, ordered by their groups, the r-th
  // owns the terms [begin[r], begin[r + 1]). The terms of attention's sum are the blocks of head_blocks(). The terms of
  // a layer's experts' sum are groups in a federated model, the blocks of width_blocks() in a dense layer, and
  // otherwise experts, by their expert_tree_index().
  std::vector<int> attention_begin;
  std::vector<std::vector<int>> expert_begin;  // by layer

  int group_ranks() const { return static_cast<int>(attention_begin.size()) - 1; }
};

// Returns the share of every rank. Shares consist of whole terms of the sums and are as even as these allow, larger
// ones first; but plan tp cuts the experts so that few subtrees of their sum make up a share. With more ranks than
// groups, plan foe gives each group the same number of ranks, and the ranks that are left over are idle. `nodes` has
// the node of each rank; if it is empty, all are on one. The ranks of a group are on one node if possible. Throws Error
// if the plan does not fit the model, or has no work for so many ranks.
Placement make_placement(const ModelConfig& config, Plan plan, int ranks, const std::vector<int>& nodes = {});

// Returns a layer's experts of each rank that shares a group with `rank` (itself included), by member.
std::vector<Range> experts_of_members(const Placement& placement, int rank, int layer);

}  // namespace foe
