// How much arithmetic training does, by definition rather than by what happens to be executed.
#pragma once

#include "train/layout.h"

namespace foe::train {

// FLOPs per token of a training step on sequences of `length` tokens: 3 * 2 * (multiply-adds of the forward pass),
// since backward multiplies twice for every product of forward. Per token the forward pass has
//   each layer   D (N + 2M) C + N C D     projections
//                2 N C (length + 1) / 2   scores and values, over the keys a query sees on average
//                D E + K 3 D F            router and chosen experts
//   once         D V                      token head
// Norms, softmax and the like are not counted, nor is what backward computes a second time (attention's scores).
inline double training_flops_per_token(const Dims& d, int length) {
  const double heads = static_cast<double>(d.heads) * d.head_dim, hidden = d.hidden;
  const double layer =
      hidden * d.qkv + heads * hidden + heads * (length + 1) + hidden * d.experts + 3.0 * d.top_k * hidden * d.width;
  return 6 * (d.layers * layer + hidden * d.vocab);
}

}  // namespace foe::train
