// From the scores of a token's experts to those that it gets, and their weights: for inference and for training. One
// token at a time, in plain loops over ascending indices, so that the result depends on nothing but the scores.
//
// Shape letters: E experts that have a score, K the most that a token gets, H expert groups.
#pragma once

#include <cstdint>

#include "core/model_config.h"
#include "core/router_config.h"

namespace foe {

struct Selection {
  RouterConfig router;
  int experts = 0;        // E
  int per_token = 0;      // K
  int expert_groups = 1;  // H: of each E/H consecutive experts at most K/H are selected; 1 if across groups
  int zero_experts = 0;   // of each group the last so many are zero experts (RouterNorm::kComputing)
};

// What a layer with a router selects by; one without selects nothing.
Selection selection(const ModelConfig& config, int layer);

// What else takes part; null: nothing.
template <typename T>
struct Controls {
  const T* selection_bias_E = nullptr;      // is added to what experts are selected by, and not to the weights
  const std::uint8_t* allowed_E = nullptr;  // experts where this is 0 are not selected
};

// Turns the scores z_E [E] into what select_activated() takes.
template <typename T>
void activate(const Selection& how, T* z_E);

// Selects by activated scores. Writes the selected experts, ascending, and their weights, and returns how many they
// are: K, or fewer where top_p is reached before or where fewer are allowed.
//
// In each of the H groups those with the largest s + selection bias are selected, ties to the lower index; if
// router.groups limits them, out of the groups that are best by group_score; with top_p below 1 the shortest beginning
// of them, best first, whose s reach it (where H > 1: this share of the sum of s over the group). A weight is s, the
// softmax over the selected scores, or 1; then they are normed over all selected, and scaled.
template <typename T>
int select_activated(const Selection& how, const Controls<T>& controls, const T* s_E, std::int32_t* experts_K,
                     T* weights_K);

// Both: z_E is used up.
template <typename T>
int select(const Selection& how, const Controls<T>& controls, T* z_E, std::int32_t* experts_K, T* weights_K) {
  activate(how, z_E);
  return select_activated(how, controls, z_E, experts_K, weights_K);
}

}  // namespace foe
