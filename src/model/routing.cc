#include "model/routing.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "core/sum_tree.h"
#include "kernels/rows/rows.h"
#include "placement/expert_nodes.h"

namespace foe {

Routing::Routing(int most_entries, int local_experts, int max_tokens)
    : begin_T(max_tokens + 1), expert_begin(local_experts + 1) {
  const std::size_t all = static_cast<std::size_t>(max_tokens) * most_entries;
  experts_J.resize(all);
  weights_J.resize(all);
  token_R.resize(all);
  row_J.resize(all);
}

Range Routing::entries(int t, Range experts) const {
  Range own = entries(t);
  while (own.size() > 0 && experts_J[own.begin] < experts.begin) ++own.begin;
  while (own.size() > 0 && experts_J[own.end - 1] >= experts.end) --own.end;
  return own;
}

namespace {

// A token's entries, from its selected scores and their weights, both ascending. Returns how many they are.
int enter(const ExpertTable& table, std::span<const std::int32_t> scores, const float* weights, float shared_weight,
          std::int32_t* experts_J, float* weights_J) {
  const int of_group = table.scored() / table.groups, shared = table.shared / table.groups;
  int entries = 0;
  const auto add = [&](int id, float weight) {
    experts_J[entries] = id;
    weights_J[entries++] = weight;
  };
  std::size_t i = 0;
  for (int group = 0; group < table.groups; ++group) {
    for (; i < scores.size() && scores[i] < (group + 1) * of_group; ++i)
      if (const int id = table.id_of_score(scores[i]); id < table.with_rows()) add(id, weights[i]);
    for (int j = 0; j < shared; ++j) add(table.id_of_shared(group, j), shared_weight);
  }
  for (i = 0; i < scores.size() && table.affine() > 0; ++i)
    if (const int id = table.id_of_score(scores[i]); id >= table.with_rows()) add(id, weights[i]);
  return entries;
}

// Moves the tokens' entries together, which stand `most` apart. begin_T[t + 1] is how many token t has.
void close_gaps(int tokens, int most, Routing& routing) {
  routing.begin_T[0] = 0;
  for (int t = 0; t < tokens; ++t) {
    const int from = t * most, to = routing.begin_T[t], count = routing.begin_T[t + 1];
    routing.begin_T[t + 1] += to;
    if (from == to) continue;
    std::copy_n(routing.experts_J.begin() + from, count, routing.experts_J.begin() + to);
    std::copy_n(routing.weights_J.begin() + from, count, routing.weights_J.begin() + to);
  }
}

}  // namespace

void select_experts(ThreadPool& pool, const ExpertTable& table, const Selection& how, const Controls<float>& controls,
                    float* scores_TE, int tokens, Routing& routing) {
  const int most = how.per_token + table.shared, columns = table.columns();
  constexpr int kBlock = 32;  // tokens per task
  pool.parallel_for((tokens + kBlock - 1) / kBlock, [&](std::size_t task) {
    const int begin = static_cast<int>(task) * kBlock, end = std::min(tokens, begin + kBlock);
    std::vector<std::int32_t> selected(how.per_token);
    std::vector<float> weights(how.per_token);
    for (int t = begin; t < end; ++t) {
      float* scores = scores_TE ? scores_TE + static_cast<std::size_t>(t) * columns : nullptr;
      std::int32_t* experts_J = routing.experts_J.data() + static_cast<std::size_t>(t) * most;
      float* weights_J = routing.weights_J.data() + static_cast<std::size_t>(t) * most;
      if (table.plain()) {
        routing.begin_T[t + 1] = select(how, controls, scores, experts_J, weights_J);
        continue;
      }
      const int count = how.per_token > 0 ? select(how, controls, scores, selected.data(), weights.data()) : 0;
      float shared_weight = 1;
      if (table.shared_gate) sigmoid(scores + columns - 1, 1, &shared_weight);
      routing.begin_T[t + 1] =
          enter(table, std::span(selected).first(count), weights.data(), shared_weight, experts_J, weights_J);
    }
  });
  close_gaps(tokens, most, routing);
}

void keep_own_group(const ExpertTable& table, int tokens, int first_group, int rows, Routing& routing) {
  int kept = 0;
  for (int row = 0; row < rows; ++row) {
    const Range all = routing.entries(row);
    const int group = first_group + row / tokens;
    routing.begin_T[row] = kept;
    for (int i = all.begin; i < all.end; ++i) {
      if (table.group_of(routing.experts_J[i]) != group) continue;
      routing.experts_J[kept] = routing.experts_J[i];
      routing.weights_J[kept++] = routing.weights_J[i];
    }
  }
  routing.begin_T[rows] = kept;
}

void sort_rows(Range local, int tokens, Routing& routing) {
  std::vector<std::int32_t>& begin = routing.expert_begin;
  begin.assign(local.size() + 1, 0);
  for (int i = 0; i < routing.begin_T[tokens]; ++i)
    if (local.contains(routing.experts_J[i])) ++begin[routing.experts_J[i] - local.begin + 1];
  for (std::size_t e = 1; e < begin.size(); ++e) begin[e] += begin[e - 1];
  // Placing the tokens moves each expert's begin to its end, which is the next one's begin: shift back afterwards.
  for (int t = 0; t < tokens; ++t)
    for (int i = routing.begin_T[t]; i < routing.begin_T[t + 1]; ++i) {
      const int expert = routing.experts_J[i];
      if (!local.contains(expert)) {
        routing.row_J[i] = -1;
        continue;
      }
      const int row = begin[expert - local.begin]++;
      routing.row_J[i] = row;
      routing.token_R[row] = t;
    }
  std::copy_backward(begin.begin(), begin.end() - 1, begin.end());
  begin[0] = 0;
}

void add_in_tree_order(const float* const* rows, const int* indices, const float* weights, int count, int D,
                       float* y_D) {
  static constexpr auto kOnes = [] {
    std::array<float, kMaxSelected> ones{};
    ones.fill(1.0f);
    return ones;
  }();
  Merge merges[kMaxSelected];
  sum_tree_merges(indices, count, merges);
  combine_rows(rows, weights ? weights : kOnes.data(), merges, count, D, y_D);
}

void combine_row(const ExpertTable& table, const Routing& routing, int t, Range experts, const float* y_RD, int D,
                 float* y_D) {
  const float* rows[kMaxSelected];
  float weights[kMaxSelected];
  int indices[kMaxSelected], count = 0;
  const Range entries = routing.entries(t, experts);
  FOE_CHECK(entries.size() <= kMaxSelected, "{} experts of one token", entries.size());
  for (int i = entries.begin; i < entries.end; ++i) {
    FOE_CHECK(routing.row_J[i] >= 0, "row {}", routing.row_J[i]);
    rows[count] = y_RD + static_cast<std::size_t>(routing.row_J[i]) * D;
    weights[count] = routing.weights_J[i];
    indices[count++] = expert_tree_index(table, routing.experts_J[i]);
  }
  add_in_tree_order(rows, indices, weights, count, D, y_D);
}

void combine_experts(ThreadPool& pool, const ExpertTable& table, const Routing& routing, std::span<const Range> parts,
                     const float* y_RD, int tokens, int D, float* updates_PTD) {
  constexpr int kBlock = 16;  // tokens per task
  const std::size_t blocks = (tokens + kBlock - 1) / kBlock;
  pool.parallel_for(parts.size() * blocks, [&](std::size_t task) {
    const std::size_t part = task / blocks;
    const int begin = static_cast<int>(task % blocks) * kBlock, end = std::min(tokens, begin + kBlock);
    float* const update_TD = updates_PTD + part * tokens * D;
    for (int t = begin; t < end; ++t)
      combine_row(table, routing, t, parts[part], y_RD, D, update_TD + static_cast<std::size_t>(t) * D);
  });
}

}  // namespace foe
