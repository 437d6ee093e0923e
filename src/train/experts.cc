#include "train/experts.h"

#include <algorithm>

#include "train/rows.h"

namespace foe::train {

template <typename T>
void experts_forward(const Dims& d, int tokens, const LayerWeights<T>& weights, const Routing<T>& routing,
                     const T* x_TD, T* gate_up_R2F, T* moe_STD, ExpertScratch<T>& scratch) {
  const std::size_t hidden = d.hidden, f = d.width;
  std::fill_n(moe_STD, static_cast<std::size_t>(d.streams) * tokens * hidden, T{0});
  for (int e = 0; e < d.experts; ++e) {
    const std::size_t first = routing.first_E[e];
    const int rows = routing.rows(e);
    const std::int32_t* token = routing.token_R.data() + first;
    T* gate_up = gate_up_R2F + first * 2 * f;
    multiply_packed<T>(rows, {x_TD, hidden, token}, weights.gate_up[e].forward, {gate_up, 2 * f}, Into::kOverwrite);
    for (int r = 0; r < rows; ++r) {
      const T* gate = gate_up + r * 2 * f;
      swiglu_row(gate, gate + f, routing.weight_TK[routing.slot_R[first + r]], d.width, scratch.h_RF.data() + r * f);
    }
    T* moe = moe_STD + static_cast<std::size_t>(d.stream_of(e)) * tokens * hidden;
    multiply_packed<T>(rows, {scratch.h_RF.data(), f}, weights.down[e].forward, {moe, hidden, token}, Into::kAdd);
  }
}

// The routing weight w multiplies h: y = (w h) Wd^T. So the gradient of w is dh . h with dh = dy Wd, and y is not
// needed.
template <typename T>
void experts_backward(const Dims& d, int tokens, const LayerWeights<T>& weights, const LayerOffsets& at,
                      const Routing<T>& routing, const T* x_TD, const T* gate_up_R2F, const T* dmoe_STD, T* dx_TD,
                      T* dweight_TK, T* gradients, ExpertScratch<T>& scratch, ProductScratch<T>& products) {
  const std::size_t hidden = d.hidden, f = d.width;
  T* h = scratch.h_RF.data();
  T* dh = scratch.dh_RF.data();
  T* dgate_up = scratch.dgate_up_R2F.data();
  for (int e = 0; e < d.experts; ++e) {
    const std::size_t first = routing.first_E[e];
    const int rows = routing.rows(e);
    const std::int32_t* token = routing.token_R.data() + first;
    const Rows<const T> dy{dmoe_STD + static_cast<std::size_t>(d.stream_of(e)) * tokens * hidden, hidden, token};
    const Rows<const T> x{x_TD, hidden, token};
    multiply_packed<T>(rows, dy, weights.down[e].backward, {dh, f}, Into::kOverwrite);
    for (int r = 0; r < rows; ++r) {
      const std::int32_t slot = routing.slot_R[first + r];
      const T* gate = gate_up_R2F + (first + r) * 2 * f;
      T* dgate = dgate_up + r * 2 * f;
      dweight_TK[slot] = swiglu_row_backward(gate, gate + f, routing.weight_TK[slot], dh + r * f, d.width, dgate,
                                             dgate + f, h + r * f);
    }
    multiply_transposed<T>(rows, dy, d.hidden, {h, f}, d.width, {gradients + at.down[e], f}, Into::kAdd, products);
    multiply_transposed<T>(rows, {dgate_up, 2 * f}, 2 * d.width, x, d.hidden, {gradients + at.gate_up[e], hidden},
                           Into::kAdd, products);
    multiply_packed<T>(rows, {dgate_up, 2 * f}, weights.gate_up[e].backward, {dx_TD, hidden, token}, Into::kAdd);
  }
}

#define FOE_INSTANTIATE(T)                                                                                         \
  template void experts_forward(const Dims&, int, const LayerWeights<T>&, const Routing<T>&, const T*, T*, T*,     \
                                ExpertScratch<T>&);                                                                \
  template void experts_backward(const Dims&, int, const LayerWeights<T>&, const LayerOffsets&, const Routing<T>&, \
                                 const T*, const T*, const T*, T*, T*, T*, ExpertScratch<T>&, ProductScratch<T>&);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
