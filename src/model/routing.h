// Routing: selects experts from the router's scores, and sorts rows by expert, so that each expert's rows can be
// multiplied together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/model_config.h"
#include "core/share.h"

namespace foe {

// The most experts that a token may select (in a federated model: in each group).
inline constexpr int kMaxSelected = 64;

struct Routing {
  int entries = 0;  // K
  // By token: the K selected experts in ascending order, and so group by group, and their weights.
  std::vector<std::int32_t> experts_TK;
  std::vector<float> weights_TK;
  // Local expert e runs the sorted rows [expert_begin[e], expert_begin[e + 1]). Sorted row r belongs to token
  // token_R[r].
  std::vector<std::int32_t> expert_begin;
  std::vector<std::int32_t> token_R;
  // The sorted row of each (token, selected expert); -1 if this rank does not hold the expert.
  std::vector<std::int32_t> row_TK;

  // Allocates memory for `max_tokens` tokens with `selected` experts each, on a rank that holds `local_experts`.
  Routing(int selected, int local_experts, int max_tokens);
  Routing() = default;
};

// Fills experts_TK and weights_TK from scores_TE [tokens, E], which it replaces by probabilities: a softmax over all E.
// It selects the K/H largest in each group of E/H consecutive experts, on ties the lower index. With norm_topk_prob the
// weights are divided by their sum over all K. A dense model's one expert gets weight 1, and its scores may be null.
void select_experts(ThreadPool& pool, const ModelConfig& config, float* scores_TE, int tokens, Routing& routing);

// Fills expert_begin, token_R and row_TK from experts_TK.
void sort_rows(const Share& share, int tokens, Routing& routing);

// Writes the sum over j < count of weights[j] * rows[j] to y_D, or of rows[j] if `weights` is null. The terms have the
// given indices in the tree of core/sum_tree.h. count <= kMaxSelected.
void add_in_tree_order(const float* const* rows, const int* indices, const float* weights, int count, int D,
                       float* y_D);

// Writes, for token t, the sum of weight * y_RD[row] over those of its experts that are in `experts` to y_D. These
// experts must be local.
void combine_row(const ModelConfig& config, const Routing& routing, int t, Range experts, const float* y_RD,
                 float* y_D);

// The same for the tokens [0, tokens) and each of `parts`: writes one [T, D] after the other.
void combine_experts(ThreadPool& pool, const ModelConfig& config, const Routing& routing, std::span<const Range> parts,
                     const float* y_RD, int tokens, float* updates_PTD);

}  // namespace foe
