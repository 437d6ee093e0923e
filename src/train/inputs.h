// What the blocks of a layer read, and which updates of groups a sum takes in: for the forward and the backward pass.
#pragma once

#include "train/model.h"
#include "train/rows.h"

namespace foe::train {

// What a layer or a block begins with.
template <typename T>
struct LayerInput {
  const T* residual_TD;  // the residual of the layer below
  const T* updates_STD;  // what that layer's experts have added since, which it has not: null if there is nothing
  const T* read_STD;     // what a block reads of that: all of it, which is null in the first layer, or nothing

  // Returns the row that stream s reads of token t, in `sum_D` if it is a sum.
  const T* row(int s, int t, int tokens, int hidden, T* sum_D) const {
    const T* r = residual_TD + product(t, hidden);
    if (!read_STD) return r;
    const T* m = read_STD + product(s, tokens, hidden) + product(t, hidden);
    for (int i = 0; i < hidden; ++i) sum_D[i] = r[i] + m[i];
    return sum_D;
  }
};

// The input of a layer, and what its attention reads. A layer behind the last one is the end.
template <typename T>
LayerInput<T> input_of(const ModelConfig& config, const Activations<T>& a, int layer) {
  if (layer == 0) return {a.embedded_TD.data(), nullptr, nullptr};
  const LayerActivations<T>& below = a.layers[layer - 1];
  const bool federated = config.federated();
  const T* updates_STD = !federated || config.has_pending_updates(layer) ? below.moe_STD.data() : nullptr;
  const bool reads = layer < config.num_layers() && (!federated || config.reads_updates(layer));
  return {below.residual_TD.data(), updates_STD, reads ? updates_STD : nullptr};
}

// What a layer's experts read: what its attention has left or, in a parallel block, what its attention reads.
template <typename T>
LayerInput<T> experts_input(const ModelConfig& config, const Activations<T>& a, int layer) {
  if (config.experts_block(layer).parallel) return input_of(config, a, layer);
  const T* own_STD = config.syncs(layer) ? nullptr : a.layers[layer].own_STD.data();
  return {a.layers[layer].residual_TD.data(), own_STD, own_STD};
}

// How many rows a layer's experts have of so many tokens.
inline int expert_rows(const ModelConfig& config, const Dims& d, int layer, int tokens) {
  return config.syncs(layer) ? tokens : d.streams * tokens;
}

// The updates of the groups of a federated model that the sum at the end of attention takes in; null if there are none.
template <typename T>
const T* summed_updates(const ModelConfig& config, const Activations<T>& a, int layer) {
  if (config.experts_block(layer).parallel) return a.layers[layer].moe_STD.data();
  return input_of(config, a, layer).updates_STD;
}

}  // namespace foe::train
