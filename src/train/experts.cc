#include "train/experts.h"

#include <algorithm>

#include "placement/expert_nodes.h"
#include "train/rows.h"

namespace foe::train {

namespace {

// M_h of each token: the weighted sum of the outputs of the experts that it has selected in the stream's groups.
template <typename T>
void combine(const ModelConfig& config, const Dims& d, int tokens, const Routing<T>& routing, const T* y_RD,
             T* moe_STD) {
  const ExpertTable table = expert_table(config, 0);
  const std::size_t hidden = d.hidden;
  const bool own = routing.group_tokens > 0;  // a token has one stream, whose experts it has
  std::vector<const T*> rows(d.top_k);
  std::vector<int> indices(d.top_k);
  std::vector<Merge> merges(d.top_k);
  for (int t = 0; t < tokens; ++t) {
    const std::size_t end = product(t + 1, d.top_k);
    std::size_t slot = product(t, d.top_k);  // ids ascend, so those of a stream are together
    while (slot < end && d.stream_of(routing.expert_TK[slot]) < 0) ++slot;
    for (int s = 0; s < d.streams; ++s) {
      const std::size_t first = slot;
      for (; slot < end && d.stream_of(routing.expert_TK[slot]) == s; ++slot) {
        if (routing.row_TK[slot] < 0) continue;
        rows[slot - first] = y_RD + routing.row_TK[slot] * hidden;
        indices[slot - first] = expert_tree_index(table, routing.expert_TK[slot]);
      }
      if (own && s != t / routing.group_tokens) continue;
      const int count = static_cast<int>(slot - first);
      sum_tree_merges(indices.data(), count, merges.data());
      combine_rows(rows.data(), routing.weight_TK.data() + first, merges.data(), count, d.hidden,
                   moe_STD + (own ? 0 : product(s, tokens, d.hidden)) + t * hidden);
    }
  }
}

}  // namespace

template <typename T>
void experts_forward(const ModelConfig& config, const Dims& d, int tokens, const LayerWeights<T>& weights,
                     const Routing<T>& routing, const T* x_TD, T* gate_up_R2F, T* moe_STD, ExpertScratch<T>& scratch,
                     ProductScratch<T>& products) {
  const std::size_t hidden = d.hidden, f = d.width;
  const Range own = d.own_experts();
  for (int e = own.begin; e < own.end; ++e) {
    const std::size_t first = routing.first_E[e];
    const int rows = routing.rows(e);
    T* gate_up = gate_up_R2F + first * 2 * f;
    multiply_packed<T>(rows, {x_TD, hidden, routing.token_R.data() + first}, weights.gate_up[e].forward,
                       {gate_up, 2 * f}, Into::kOverwrite, products);
    for (int r = 0; r < rows; ++r) {
      const T* gate = gate_up + r * 2 * f;
      swiglu_row(gate, gate + f, T{1}, d.width, scratch.h_RF.data() + r * f);
    }
    multiply_packed<T>(rows, {scratch.h_RF.data(), f}, weights.down[e].forward,
                       {scratch.y_RD.data() + first * hidden, hidden}, Into::kOverwrite, products);
  }
  combine(config, d, tokens, routing, scratch.y_RD.data(), moe_STD);
}

// What an expert adds is w (h Wd^T) = (w h) Wd^T. So the gradient of w is dh . h with dh = dy Wd, and y is not needed.
template <typename T>
void experts_backward(const Dims& d, int tokens, DType precision, const LayerWeights<T>& weights,
                      const LayerOffsets& at, const Routing<T>& routing, const T* x_TD, const T* gate_up_R2F,
                      const T* dmoe_STD, T* dx_STD, T* dweight_TK, T* gradients, ExpertScratch<T>& scratch,
                      ProductScratch<T>& products) {
  const std::size_t hidden = d.hidden, f = d.width;
  T* h = scratch.h_RF.data();
  T* dh = scratch.dh_RF.data();
  T* dgate_up = scratch.dgate_up_R2F.data();
  const bool own = routing.group_tokens > 0;
  std::fill_n(dx_STD, product(own ? 1 : d.streams, tokens, d.hidden), T{0});
  if (own) std::fill_n(dweight_TK, product(tokens, d.top_k), T{0});  // of what has no row
  const Range experts = d.own_experts();
  for (int e = experts.begin; e < experts.end; ++e) {
    const std::size_t first = routing.first_E[e], stream = own ? 0 : product(d.stream_of(e), tokens, d.hidden);
    const int rows = routing.rows(e);
    const std::int32_t* token = routing.token_R.data() + first;
    const Rows<const T> dy{dmoe_STD + stream, hidden, token};
    const Rows<const T> x{x_TD, hidden, token};
    multiply_packed<T>(rows, dy, weights.down[e].backward, {dh, f}, Into::kOverwrite, products);
    for (int r = 0; r < rows; ++r) {
      const std::int32_t slot = routing.slot_R[first + r];
      const T* gate = gate_up_R2F + (first + r) * 2 * f;
      T* dgate = dgate_up + r * 2 * f;
      dweight_TK[slot] = swiglu_row_backward(gate, gate + f, routing.weight_TK[slot], dh + r * f, d.width, dgate,
                                             dgate + f, h + r * f);
    }
    multiply_transposed<T>(precision, rows, dy, d.hidden, {h, f}, d.width, {gradients + at.down[e], f}, Into::kAdd,
                           products);
    multiply_transposed<T>(precision, rows, {dgate_up, 2 * f}, 2 * d.width, x, d.hidden,
                           {gradients + at.gate_up[e], hidden}, Into::kAdd, products);
    multiply_packed<T>(rows, {dgate_up, 2 * f}, weights.gate_up[e].backward, {dx_STD + stream, hidden, token},
                       Into::kAdd, products);
  }
}

#define FOE_INSTANTIATE(T)                                                                                       \
  template void experts_forward(const ModelConfig&, const Dims&, int, const LayerWeights<T>&, const Routing<T>&, \
                                const T*, T*, T*, ExpertScratch<T>&, ProductScratch<T>&);                        \
  template void experts_backward(const Dims&, int, DType, const LayerWeights<T>&, const LayerOffsets&,           \
                                 const Routing<T>&, const T*, const T*, const T*, T*, T*, T*, ExpertScratch<T>&, \
                                 ProductScratch<T>&);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
