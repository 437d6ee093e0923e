// Routing: selects experts from the router's scores, and sorts rows by expert, so that each expert's rows can be
// multiplied together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "core/expert_table.h"
#include "core/share.h"
#include "kernels/rows/select.h"

namespace foe {

// The most experts that a token may select (in a federated model: in each group).
inline constexpr int kMaxSelected = 64;

// Shape letter J: entries, the pairs of a token and an expert that it gets.
struct Routing {
  // Token t has the entries [begin_T[t], begin_T[t + 1]): its experts in ascending order of their ids
  // (core/expert_table.h), and their weights.
  std::vector<std::int32_t> begin_T;
  std::vector<std::int32_t> experts_J;
  std::vector<float> weights_J;
  // Local expert e runs the sorted rows [expert_begin[e], expert_begin[e + 1]). Sorted row r belongs to token
  // token_R[r].
  std::vector<std::int32_t> expert_begin;
  std::vector<std::int32_t> token_R;
  // The sorted row of each entry; -1 if this rank does not hold the expert, or it has no rows.
  std::vector<std::int32_t> row_J;

  // Allocates memory for `max_tokens` tokens with at most so many entries each, on a rank that holds at most
  // `local_experts`.
  Routing(int most_entries, int local_experts, int max_tokens);
  Routing() = default;

  Range entries(int t) const { return {begin_T[t], begin_T[t + 1]}; }
  // Those of a token's entries whose experts are in this range of ids.
  Range entries(int t, Range experts) const;
};

// Fills begin_T, experts_J and weights_J from scores_TE [tokens, the table's columns], of which it replaces the scores
// by what they become (kernels/rows/select.h). Besides the selected experts every token has the shared ones. If there
// are no others, and no gate, scores may be null.
void select_experts(ThreadPool& pool, const ExpertTable& table, const Selection& how, const Controls<float>& controls,
                    float* scores_TE, int tokens, Routing& routing);

// Keeps those of each row's entries that are of the row's group, where the first `tokens` rows are of the first group,
// and so on.
void keep_own_group(const ExpertTable& table, int tokens, int first_group, int rows, Routing& routing);

// Fills expert_begin, token_R and row_J from the entries, on a rank that holds `local` experts.
void sort_rows(Range local, int tokens, Routing& routing);

// Writes the sum over j < count of weights[j] * rows[j] to y_D, or of rows[j] if `weights` is null. The terms have the
// given indices in the tree of core/sum_tree.h. count <= kMaxSelected.
void add_in_tree_order(const float* const* rows, const int* indices, const float* weights, int count, int D,
                       float* y_D);

// Writes, for token t, the sum of weight * y_RD[row] over those of its experts that are in `experts` to y_D. These
// experts must be local, and have rows.
void combine_row(const ExpertTable& table, const Routing& routing, int t, Range experts, const float* y_RD, int D,
                 float* y_D);

// The same for the tokens [0, tokens) and each of `parts`: writes one [T, D] after the other.
void combine_experts(ThreadPool& pool, const ExpertTable& table, const Routing& routing, std::span<const Range> parts,
                     const float* y_RD, int tokens, int D, float* updates_PTD);

}  // namespace foe
