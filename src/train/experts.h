// The experts' SwiGLU layers over routed rows, forward and backward: M_h += w_e FFN_e(x) for every selected expert e of
// group h.
#pragma once

#include "base/huge_pages.h"
#include "train/packed_weights.h"
#include "train/products.h"
#include "train/router.h"

namespace foe::train {

// Scratch memory of one thread, for the rows of one expert if not said otherwise.
template <typename T>
struct ExpertScratch {
  ExpertScratch(const Dims& d, int tokens)
      : h_RF(large_buffer<T>(static_cast<std::size_t>(tokens) * d.width)),
        dh_RF(large_buffer<T>(static_cast<std::size_t>(tokens) * d.width)),
        dgate_up_R2F(large_buffer<T>(static_cast<std::size_t>(tokens) * 2 * d.width)),
        y_RD(large_buffer<T>(static_cast<std::size_t>(tokens) * d.top_k * d.hidden)) {}

  AlignedBuffer<T> h_RF, dh_RF, dgate_up_R2F;
  AlignedBuffer<T> y_RD;  // the outputs of all experts
};

// Writes gate_up_R2F, whose rows are those of the routing, for the backward pass, and moe_STD with a [T, D] for each
// stream of this rank. Where groups route, `tokens` are those of all groups, and x, moe and the gradients have a row
// for each. The outputs of a token's experts are added as a tree over the index of the expert, as in inference.
template <typename T>
void experts_forward(const ModelConfig& config, const Dims& d, int tokens, const LayerWeights<T>& weights,
                     const Routing<T>& routing, const T* x_TD, T* gate_up_R2F, T* moe_STD, ExpertScratch<T>& scratch,
                     ProductScratch<T>& products);

// Writes what each stream adds to the gradient of x, and those of this rank's experts in weight_TK, and adds to the
// experts' gradients in `gradients` (a flat array in the layout of the parameters). Products round to `precision`.
template <typename T>
void experts_backward(const Dims& d, int tokens, DType precision, const LayerWeights<T>& weights,
                      const LayerOffsets& at, const Routing<T>& routing, const T* x_TD, const T* gate_up_R2F,
                      const T* dmoe_STD, T* dx_STD, T* dweight_TK, T* gradients, ExpertScratch<T>& scratch,
                      ProductScratch<T>& products);

}  // namespace foe::train
