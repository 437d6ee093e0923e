// How much arithmetic training does, by definition, independent of what the implementation executes.
#pragma once

#include "train/layout.h"

namespace foe::train {

// Returns the floating-point operations per token of a training step on sequences of `length` tokens: 3 * 2 *
// (multiply-adds of the forward pass), because the backward pass has two products for each product of the forward pass.
// Per token the forward pass has these multiply-adds:
//   each layer   D (N + 2M) C + N C D     projections
//                2 N C (length + 1) / 2   scores and values, over the keys that a query sees on average
//                D E + K 3 D F            router (of one group, where each routes by itself) and selected experts
//   once         D V                      token head
// Norms, softmax and the like are not counted, nor is what the backward pass computes again (attention's scores).
inline double training_flops_per_token(const Dims& d, int length) {
  const double heads = static_cast<double>(d.heads) * d.head_dim, hidden = d.hidden;
  const double layer =
      hidden * d.qkv + heads * hidden + heads * (length + 1) + hidden * d.experts + 3.0 * d.top_k * hidden * d.width;
  return 6 * (d.layers * layer + hidden * d.vocab);
}

}  // namespace foe::train
