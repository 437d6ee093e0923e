// What affine experts (core/expert_table.h) add to their tokens. They have no rows and are on every rank, so whoever
// owns a token computes them, and adds them after the sum over experts with rows has come together: in the tree of a
// token's sum they are the second half.
//
// Shape letters: T tokens, D model width, P parts, A constant experts.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "core/expert_table.h"
#include "core/share.h"
#include "model/routing.h"

namespace foe {

struct AffineInputs {
  const float* scores_TE;     // the table's columns, as select_experts() left them
  const float* x_TD;          // what the experts read
  const float* constants_AD;  // the constant experts' vectors, in the order of their ids
};

// The affine experts of the groups.
Range affine_experts(const ExpertTable& table, Range groups);

// For each part: writes its sums [T, D], one part's after the other, over a token's affine experts in this range of
// ids: of weight * x, weight * (a x + b v), or nothing. At most kMaxSelected / 2 experts per token and part.
void sum_affine(ThreadPool& pool, const ExpertTable& table, const Routing& routing, const AffineInputs& in,
                std::span<const Range> parts, int tokens, int D, float* sums_PTD);

}  // namespace foe
