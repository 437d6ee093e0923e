// Expert parallelism between the ranks that share a group (in plan ep between all ranks): which experts' outputs a rank
// adds before it returns them to the owner of a token. A node here is one of the tree of the sum over experts, not a
// machine. `members` has the experts of each of these ranks, from experts_of_members().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "kernels/formats/wire_format.h"
#include "placement/placement.h"

namespace foe {

// What travels for a token whose experts are on other ranks.
enum class Dispatch {
  kPerRank,    // one copy of its row to each rank that holds some of its experts; that rank's partial sums travel back
  kPerExpert,  // one copy for each expert, whose output travels back: expert parallelism as it is usually described
};

// How the ranks exchange data in a forward pass.
struct ExchangeOptions {
  Dispatch dispatch = Dispatch::kPerRank;
  Wire wire = Wire::kF32;
  // Whether a large batch runs as two halves, of which one computes while the exchanges of the other go on. The bits do
  // not depend on it.
  bool overlap = false;
};

const char* to_string(Dispatch dispatch);
// Throws Error for anything but "rank" and "expert".
Dispatch parse_dispatch(const std::string& name);

// Returns the index of an expert's term in the sum over experts (core/sum_tree.h). The upper levels of the tree are
// groups and the lower ones the experts of a group, whose number is padded to a power of two.
int expert_tree_index(const ExpertTable& table, int expert);
// Returns the range of terms of these experts, including the padding between their groups.
Range expert_terms(const ExpertTable& table, Range experts);
// Returns the experts among these terms; an empty range if the terms are padding only.
Range experts_of_terms(const ExpertTable& table, Range terms);

// Experts of one member whose outputs are added before they travel back as one vector: a subtree of the sum with
// kPerRank, a single expert with kPerExpert.
struct ExpertNode {
  Range experts;
  int index;  // of its first term
  int member;
};

// Returns the nodes of all members, by ascending experts.
std::vector<ExpertNode> expert_nodes(const ExpertTable& table, std::span<const Range> members, Dispatch dispatch);
// Returns for each expert the index of its node; -1 for experts that no member holds.
std::vector<std::int32_t> node_of_each_expert(const std::vector<ExpertNode>& nodes, int experts);

// Returns how many (expert, weight) pairs travel with a row in this layer, at most.
int dispatched_entries(const ModelConfig& config, int layer, Dispatch dispatch);
// Returns the bytes of one row that travels to experts: the row itself, and the indices and weights of experts.
std::size_t dispatched_row_bytes(const ModelConfig& config, int layer, const ExchangeOptions& options);

}  // namespace foe
