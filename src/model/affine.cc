#include "model/affine.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/rows/rows.h"

namespace foe {
namespace {

// The terms of one token's sum: weight * row, by their place in the tree.
struct Terms {
  const float* rows[kMaxSelected];
  float weights[kMaxSelected];
  int indices[kMaxSelected];
  int count = 0;

  void add(int index, float weight, const float* row) {
    FOE_CHECK(count < kMaxSelected, "{} terms", count);
    rows[count] = row;
    weights[count] = weight;
    indices[count++] = index;
  }
};

// Which of all constant experts this one is.
int constant_index(const ExpertTable& table, int id) {
  return table.group_of(id) * (table.constant / table.groups) + (id - table.with_rows()) % table.affine_per_group();
}

// An expert has two terms: x at twice its index among the affine experts, v behind it.
void add_terms(const ExpertTable& table, const AffineInputs& in, int t, int id, float weight, int D, Terms& terms) {
  const float* x = in.x_TD + static_cast<std::size_t>(t) * D;
  const int index = 2 * (id - table.with_rows());
  const ExpertKind kind = table.kind_of(id);
  if (kind == ExpertKind::kCopy) terms.add(index, weight, x);
  if (kind != ExpertKind::kConstant) return;
  const int constant = constant_index(table, id);
  float shares[2];
  softmax(in.scores_TE + static_cast<std::size_t>(t) * table.columns() + table.scored() + 2 * constant, 2, shares);
  terms.add(index, weight * shares[0], x);
  terms.add(index + 1, weight * shares[1], in.constants_AD + static_cast<std::size_t>(constant) * D);
}

}  // namespace

Range affine_experts(const ExpertTable& table, Range groups) {
  return {table.with_rows() + groups.begin * table.affine_per_group(),
          table.with_rows() + groups.end * table.affine_per_group()};
}

void sum_affine(ThreadPool& pool, const ExpertTable& table, const Routing& routing, const AffineInputs& in,
                std::span<const Range> parts, int tokens, int D, float* sums_PTD) {
  constexpr int kBlock = 16;  // tokens per task
  const std::size_t blocks = (tokens + kBlock - 1) / kBlock;
  pool.parallel_for(parts.size() * blocks, [&](std::size_t task) {
    const std::size_t part = task / blocks;
    const int begin = static_cast<int>(task % blocks) * kBlock, end = std::min(tokens, begin + kBlock);
    for (int t = begin; t < end; ++t) {
      Terms terms;
      const Range entries = routing.entries(t, parts[part]);
      for (int i = entries.begin; i < entries.end; ++i)
        add_terms(table, in, t, routing.experts_J[i], routing.weights_J[i], D, terms);
      float* sum_D = sums_PTD + (part * tokens + t) * D;
      std::fill_n(sum_D, D, 0.0f);
      if (terms.count > 0) add_in_tree_order(terms.rows, terms.indices, terms.weights, terms.count, D, sum_D);
    }
  });
}

}  // namespace foe
