// Computes which rank holds which part of a model. These are pure functions of the model, the plan, and the number of
// ranks and nodes; docs/architecture.md, "Plans", explains the plans.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
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
  kPp,   // each rank is a stage: it has some layers, all of them that follow each other, and passes its rows on
};

const char* to_string(Plan plan);
// Throws Error for anything but "tp", "foe", "ep" and "pp".
Plan parse_plan(const std::string& name);
// Returns the plan that fits the model: foe for a federated model, tp for any other.
Plan default_plan(const ModelConfig& config);

// A plan, and what is to be said of it.
struct PlanChoice {
  Plan plan;
  // How many layers each stage has, in their order. Empty: so that the parameters of a stage's layers, the token head
  // among them, are as even as whole layers allow.
  std::vector<int> stage_layers = {};
  // How many stages there are, each of as many ranks, which share its layers under the plan; 0: as many as stage_layers
  // has or, if it is empty, one for each rank in plan pp, and one for all ranks in any other.
  int stages = 0;
  bool split_sequences = false;  // Placement::split_sequences

  PlanChoice(Plan chosen, std::vector<int> layers = {}, int stage_count = 0, bool split = false)
      : plan(chosen), stage_layers(std::move(layers)), stages(stage_count), split_sequences(split) {}
};

// A batch runs through stages: sets of ranks that have some layers, one after the other, in the order of the ranks.
struct Placement {
  Plan plan = Plan::kTp;
  std::vector<Share> ranks;
  int stages = 1;
  int members = 1;  // how many ranks share each group
  // Where several ranks share a group: whether they share the rows of every sequence among them (deal.h) and each keep
  // the keys and values of all, or each own sequences.
  bool split_sequences = false;
  // Which rank owns which terms of the sums. Among the ranks of a stage with the same sequences, ordered by their
  // groups, the r-th owns the terms [begin[r], begin[r + 1]). The terms of attention's sum are the blocks of
  // head_blocks(). The terms of a layer's experts' sum are groups in a federated model, the blocks of width_blocks() in
  // a dense layer, and otherwise experts, by their expert_tree_index().
  std::vector<int> attention_begin;
  std::vector<std::vector<int>> expert_begin;  // by layer

  int group_ranks() const { return static_cast<int>(attention_begin.size()) - 1; }
  int stage_ranks() const { return static_cast<int>(ranks.size()) / stages; }
  // How many members own sequences, each with KV blocks of its own (Batch::sequence_owner).
  int owners() const { return split_sequences ? 1 : members; }
};

// Returns the share of every rank. Shares consist of whole terms of the sums and are as even as these allow, larger
// ones first; but plan tp cuts the experts so that few subtrees of their sum make up a share. With more ranks than
// groups, plan foe gives each group the same number of ranks, and the ranks that are left over are idle. Stages are
// alike but for their layers. `nodes` has
// the node of each rank; if it is empty, all are on one. The ranks of a group are on one node if possible. Throws Error
// if the plan does not fit the model, has no work for so many ranks, or no ranks that could split sequences.
Placement make_placement(const ModelConfig& config, const PlanChoice& choice, int ranks,
                         const std::vector<int>& nodes = {});

// Returns a layer's experts of each rank of its stage that shares a group with `rank` (itself included), by member.
std::vector<Range> experts_of_members(const Placement& placement, int rank, int layer);

// Returns the rank of the next stage that goes on with the rows of `rank`, or (-1) of the stage before, which has them
// first; -1 if there is none.
int rank_of_stage(const Placement& placement, int rank, int step);
// Returns how many vectors a stage that begins with this layer receives of each token: r and, in a federated model, the
// update of each stream that is not in r yet.
int passed_vectors(const ModelConfig& config, const Share& share, int layer);
// Returns in how many micro-batches a step of so many tokens runs. Each goes through all stages, and a stage begins
// with the next one when it has passed one on. 1 if there is one stage.
int micro_batches(const Placement& placement, int tokens);
// Returns where part i of so many begins, if this many rows are cut into even parts, of which the first may have one
// more.
inline int cut_of_rows(int rows, std::int64_t parts, std::int64_t i) {
  return static_cast<int>((rows * i + parts - 1) / parts);
}
// Throws Error if halves of a step are to overlap (ExchangeOptions::overlap) where micro-batches do so already.
void check_overlap(const Placement& placement, bool overlap);

}  // namespace foe
