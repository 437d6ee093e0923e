// Routing in training: a softmax over all E scores, of which the K / H largest of each group's E / H experts are
// selected, on ties the lower index. The weights are the probabilities or, with norm_topk_prob, their shares of the sum
// over all K (kernels/rows/select.h, as in inference). No token is dropped: every expert runs all tokens that selected
// it.
//
// Two losses keep the router balanced. Both are computed for each group and averaged over the H groups, so that H = 1
// is the usual definition:
//   balance  E * sum over the group's experts e of f_e P_e. f_e is the share of the group's selections that went to e,
//            a constant for the gradient, and P_e the mean probability of e (Fedus et al. 2021, eq. 4). Even routing
//            gives 1.
//   z        (log of the sum of exp of the group's scores)^2, the mean over tokens (Zoph et al. 2022, eq. 5).
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "core/route.h"
#include "train/layout.h"

namespace foe::train {

struct RouterLosses {
  double balance = 0, z = 0;
};

// One layer's routing of T tokens. R = T * K rows, sorted by expert and then by token.
//
// Where the groups of a federated model have not synced, each routes the tokens by its own residual. Then T stands for
// the tokens of all groups (on this rank), group by group, and of what a token selects only the experts of its group
// have rows.
template <typename T>
struct Routing {
  Routing(const Dims& d, int tokens);

  AlignedBuffer<T> p_TE;        // softmax over all experts
  AlignedBuffer<T> share_TE;    // softmax over each group's experts
  AlignedBuffer<T> log_sum_TH;  // log of the sum of exp of each group's scores
  AlignedBuffer<T> weight_TK;   // the weights of the selected experts' outputs
  std::vector<std::int32_t> expert_TK;
  std::vector<std::int32_t> first_E;  // rows [first_E[e], first_E[e + 1]) are expert e's; E + 1 entries
  std::vector<std::int32_t> token_R;  // the token of each row
  std::vector<std::int32_t> slot_R;   // the index of each row in expert_TK and weight_TK
  std::vector<std::int32_t> row_TK;   // and the other way round; -1 without a row
  int group_tokens = 0;               // where groups route, how many tokens each has; otherwise 0
  std::vector<RouterLosses> losses;   // of the layer or, where groups route, what each group adds to it
  bool has_row(const Dims& d, std::size_t slot) const {
    return group_tokens == 0 || d.stream_of(expert_TK[slot]) == static_cast<int>(slot / d.top_k) / group_tokens;
  }
  int rows(int expert) const { return first_E[expert + 1] - first_E[expert]; }
};

// Takes the scores in routing.share_TE of a layer, and fills the routing. With `forced`, a route of these tokens, its
// experts and weights take the place of what the router selects, as in a replay (docs/routes.md). Throws Error if a
// token has fewer experts there than in training, or in a layer that does not sync, where `tokens` are those of all
// groups.
template <typename T>
void route(const ModelConfig& config, const Dims& d, int layer, int tokens, const Route* forced, Routing<T>& routing);

// Writes dscores_TE from the gradient of weight_TK and from both losses. `losses` has the factors with which they count
// in the whole loss.
template <typename T>
void route_backward(const ModelConfig& config, const Dims& d, int tokens, const Routing<T>& routing,
                    const T* dweight_TK, const RouterLosses& losses, T* dscores_TE);

}  // namespace foe::train
