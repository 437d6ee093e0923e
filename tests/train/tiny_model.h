// Small models with every feature, and parameters with which every feature has an effect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/rng.h"
#include "core/configs.h"
#include "train/layout.h"
#include "train/model.h"

namespace foe::train {

struct TinyCase {
  std::string name;
  int groups = 1;
  Residual residual = Residual::kShared;
  GroupSync sync = GroupSync::kMean;
  QkNorm qk_norm = QkNorm::kNone;
  bool norm_topk_prob = false, tied = false;
  int top_k = 2;
  void (*change)(ModelConfig&) = nullptr;
};

// What a layer adds has factors, which differ by layer and block.
inline void set_factors(ModelConfig& m) {
  double factor = 0.7;
  for (LayerConfig& layer : m.layers)
    for (BlockConfig& block : layer.blocks) block.residual_factor = factor += 0.1;
}

// Experts beside attention, in all layers or where a shared residual lets layers differ.
inline void set_parallel(ModelConfig& m) {
  for (int l = m.federated() ? 0 : 1; l < m.num_layers(); ++l) m.layers[l].blocks[1].parallel = true;
}

// Attention beside the experts of the layer below, which are selected across groups.
inline void set_delayed(ModelConfig& m) {
  for (int l = 1; l < m.num_layers(); ++l) m.layers[l].blocks[0].parallel = true;
  for_each_experts(m, [](ExpertsConfig& e) { e.router->across_groups = true; });
}

inline void PrintTo(const TinyCase& tiny, std::ostream* out) {
  *out << tiny.name;
}

inline ModelConfig tiny_config(const TinyCase& c) {
  ModelConfig m = small_config();
  m.hidden_size = 8;
  m.vocab_size = 13;
  m.layers =
      uniform_layers(3, {.query_heads = 8, .kv_heads = 4, .key_width = 4, .qk_norm = c.qk_norm, .rope_factor = 2},
                     {.count = 16,
                      .per_token = c.top_k,
                      .width = 6,
                      .router = RouterConfig{.norm = c.norm_topk_prob ? RouterNorm::kSelected : RouterNorm::kNone}});
  m.tie_word_embeddings = c.tied;
  m.max_position_embeddings = 64;
  m.expert_groups = c.groups;
  m.residual = c.residual;
  m.group_sync = c.sync;
  if (c.change) c.change(m);
  return m;
}

inline std::vector<TinyCase> tiny_cases() {
  using enum Residual;
  using enum GroupSync;
  using enum QkNorm;
  return {
      {"Moe", 1, kShared, kMean, kNone, false, false, 2},
      {"MoeHeadNormTied", 1, kShared, kMean, kHead, true, true, 2},
      {"MoeFullNorm", 1, kShared, kMean, kFull, false, true, 4},
      {"Moge", 2, kShared, kMean, kNone, true, false, 4},
      {"FoeSum", 2, kFederated, kSum, kNone, false, true, 2},
      {"FoeMean", 4, kFederated, kMean, kHead, true, false, 4},
      {"FoeSumFullNorm", 2, kFederated, kSum, kFull, true, false, 4},
      {"FoeMeanFullNorm", 4, kFederated, kMean, kFull, false, true, 4},
      {"MoeParallel", 1, kShared, kMean, kHead, false, true, 2,
       [](ModelConfig& m) { set_factors(m), set_parallel(m); }},
      {"FoeParallel", 2, kFederated, kMean, kNone, false, true, 2, set_parallel},
      {"FoeSecond", 2, kFederated, kMean, kHead, true, true, 4,
       [](ModelConfig& m) { set_factors(m), m.group_sync_every = 2; }},
      {"FoeDelayed", 2, kFederated, kMean, kHead, true, true, 3,
       [](ModelConfig& m) { set_factors(m), set_delayed(m); }},
  };
}

// Returns parameters that are much larger than at the start of a real run, so that attention is not uniform and no M_h
// is near zero.
template <typename T>
AlignedBuffer<T> tiny_params(const Layout& layout, std::uint64_t seed) {
  auto params = AlignedBuffer<T>::zeroed(layout.size);
  for (const TensorSlot& tensor : layout.tensors)
    for (std::size_t i = 0; i < tensor.size; ++i) {
      const double x = random_normal(seed, tensor.offset + i);
      params[tensor.offset + i] = static_cast<T>(tensor.init_std == 0 ? 1 + 0.2 * x : 0.4 * x);
    }
  return params;
}

inline std::vector<std::int32_t> tiny_tokens(int count, int vocab, std::uint64_t seed) {
  std::vector<std::int32_t> tokens(count);
  for (int i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(random_bits(seed, i) % vocab);
  return tokens;
}

}  // namespace foe::train
