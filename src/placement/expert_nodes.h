// Expert parallelism among the ranks that share a group (in plan ep all of them): which experts' outputs a rank adds
// before it returns them. `members` are these ranks' experts
// (experts_of_members()).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "kernels/formats/wire_format.h"
#include "placement/placement.h"

namespace foe {

// What travels for a token whose experts are on several ranks, or several of them on one.
enum class Dispatch {
  kPerRank,  // one copy to each rank that holds some of them, and that rank's partial sums back: as little as there is
  kPerExpert,  // a copy for each expert, and its output back: expert parallelism as it is usually described
};

// How ranks exchange what the forward pass sends.
struct ExchangeOptions {
  Dispatch dispatch = Dispatch::kPerRank;
  Wire wire = Wire::kF32;
  // Whether a large batch runs as two halves, each computing while the other one's exchanges go on. The bits do not
  // depend on it.
  bool overlap = false;
};

const char* to_string(Dispatch dispatch);
// Throws Error for anything but "rank" and "expert".
Dispatch parse_dispatch(const std::string& name);

// An expert's place in the tree of the sum (core/sum_tree.h): groups above, experts of a group below, both padded to
// powers of two.
int expert_tree_index(const ModelConfig& config, int expert);
// The terms that experts have there, and what pads their groups.
Range expert_terms(const ModelConfig& config, Range experts);
// And back: the experts among these terms; none if it is padding alone.
Range experts_of_terms(const ModelConfig& config, Range terms);

// Experts of one member whose outputs are added before they return: a subtree of the sum, or a single expert.
struct ExpertNode {
  Range experts;
  int index;  // its place in the sum's tree
  int member;
};

// Of all members, ascending.
std::vector<ExpertNode> expert_nodes(const ModelConfig& config, std::span<const Range> members, Dispatch dispatch);
// -1 for experts that no member holds.
std::vector<std::int32_t> node_of_each_expert(const std::vector<ExpertNode>& nodes, int experts);

// Which of a token's K selected experts, in ascending order, the members hold: all, or in a federated model K/H.
Range selected_entries(const ModelConfig& config, std::span<const Range> members);
// (expert, weight) pairs that travel with a row.
int dispatched_entries(const ModelConfig& config, Dispatch dispatch);
// Of one row that travels to experts: the row, their indices and weights.
std::size_t dispatched_row_bytes(const ModelConfig& config, const ExchangeOptions& options);

}  // namespace foe
