// From router scores to rows sorted by expert: what the experts' grouped products run on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/model_config.h"
#include "core/share.h"

namespace foe {

// The most experts of a token whose outputs one sum may take in: per group in a federated model.
inline constexpr int kMaxSelected = 64;

struct Routing {
  int entries = 0;  // K
  // By token: the K selected experts in ascending order (so group by group) and their weights.
  std::vector<std::int32_t> experts_TK;
  std::vector<float> weights_TK;
  // By local expert: rows [expert_begin[e], expert_begin[e + 1]) of the sorted rows are its own; row r is of token
  // token_R[r].
  std::vector<std::int32_t> expert_begin;
  std::vector<std::int32_t> token_R;
  // Sorted row of each (token, selected expert), -1 where the expert is elsewhere.
  std::vector<std::int32_t> row_TK;

  // Room for `max_tokens` tokens with K selected experts each, on a rank that holds `local_experts`.
  Routing(int selected, int local_experts, int max_tokens);
  Routing() = default;
};

// Fills the first two from scores_TE [tokens, E], which it turns into probabilities: softmax over all E, then the K/H
// largest in each group of E/H consecutive experts, ties to the lower index; with norm_topk_prob divided by their sum
// over all K. A dense model's one expert gets weight 1 (scores may be null).
void select_experts(ThreadPool& pool, const ModelConfig& config, float* scores_TE, int tokens, Routing& routing);

// Fills the rest.
void sort_rows(const Share& share, int tokens, Routing& routing);

// y_D = the sum over j < count of weights[j] * rows[j], or of rows[j] without weights, in the order of core/sum_tree.h
// with terms at `indices`. count <= kMaxSelected.
void add_in_tree_order(const float* const* rows, const int* indices, const float* weights, int count, int D,
                       float* y_D);

// y_D = for token t the sum over those of its experts in [experts.begin, experts.end) of weight * y_RD[row]. All those
// experts must be local.
void combine_row(const ModelConfig& config, const Routing& routing, int t, Range experts, const float* y_RD,
                 float* y_D);

// The same for tokens [0, tokens) and each of the parts, one [T, D] after the other.
void combine_experts(ThreadPool& pool, const ModelConfig& config, const Routing& routing, std::span<const Range> parts,
                     const float* y_RD, int tokens, float* updates_PTD);

}  // namespace foe
