// How a router's scores become the experts of a token and their weights.
#pragma once

#include <string>

namespace foe {

// What a score becomes before experts are selected by it, and what weighs the selected.
enum class RouterScore {
  kSoftmax,          // over all experts
  kSigmoid,          // of each score by itself
  kSelectedSoftmax,  // the largest scores are selected; weights are the softmax over these
  kOne,              // the largest scores are selected; every weight is 1
};

// What a group of experts is worth where only the best groups may be selected from.
enum class GroupScore {
  kMax,     // its best expert (DeepSeek-V2)
  kTopTwo,  // the sum of its two best (DeepSeek-V3)
};

// The weights that are divided by their sum.
enum class RouterNorm {
  kNone,
  kSelected,   // those of all selected experts
  kComputing,  // those of the selected experts that are not zero experts, whose weights become 0 (AdaMoE)
};

struct RouterConfig {
  RouterScore score = RouterScore::kSoftmax;
  bool selection_bias = false;     // a tensor [experts] is added to what experts are selected by, not to the weights
  bool across_groups = false;      // the K best of all experts are selected, not K/H in each of the H expert groups
  int groups = 1, top_groups = 1;  // of so many groups of consecutive experts, a token's are in the best `top_groups`
  GroupScore group_score = GroupScore::kMax;
  double top_p = 1;  // a token has no more experts than the best ones whose probabilities reach this sum; 1: all K
  RouterNorm norm = RouterNorm::kNone;
  double scale = 1;     // of every weight, after the norm
  double norm_min = 0;  // the sum that the norm divides by counts as at least this (ERNIE)
  bool bias = false;    // a tensor [experts] is added to the scores, before all else

  bool operator==(const RouterConfig&) const = default;
};

// Throws Error, naming the key behind `prefix`, for what has no meaning in a router that selects `per_token` of
// `experts` experts, equally many in each of the model's `expert_groups` unless it selects across them.
void validate(const RouterConfig& router, int experts, int per_token, int expert_groups, const std::string& prefix);

const char* to_string(RouterScore value);
const char* to_string(GroupScore value);
const char* to_string(RouterNorm value);

}  // namespace foe
