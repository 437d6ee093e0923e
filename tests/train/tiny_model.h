// Small models with every feature, and parameters with which every feature has an effect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/rng.h"
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
};

inline void PrintTo(const TinyCase& tiny, std::ostream* out) {
  *out << tiny.name;
}

inline ModelConfig tiny_config(const TinyCase& c) {
  ModelConfig m;
  m.hidden_size = 8;
  m.num_hidden_layers = 3;
  m.num_attention_heads = 8;
  m.num_key_value_heads = 4;
  m.head_dim = 4;
  m.vocab_size = 13;
  m.num_experts = 16;
  m.num_experts_per_tok = c.top_k;
  m.moe_intermediate_size = 6;
  m.norm_topk_prob = c.norm_topk_prob;
  m.rope_scaling_factor = 2;
  m.tie_word_embeddings = c.tied;
  m.max_position_embeddings = 64;
  m.qk_norm = c.qk_norm;
  m.expert_groups = c.groups;
  m.residual = c.residual;
  m.group_sync = c.sync;
  m.model_type = "foe";
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
