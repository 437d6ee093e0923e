// Where every parameter stands in one flat array. Parameters, their gradients and both moments of the optimiser share
// the layout, so that whatever treats all parameters alike is one loop over one array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/model_config.h"

namespace foe::train {

// Sizes by the letters of the design, spelled out; H of them are groups.
struct Dims {
  explicit Dims(const ModelConfig& config);

  int hidden, layers, heads, kv_heads, head_dim, vocab;
  int experts, top_k, width;  // E, K, F
  int groups;                 // H: each token picks top_k / groups experts in each
  int streams;                // groups that attend to a residual of their own: H if federated, else 1
  int qkv;                    // (N + 2M) C: queries, keys and values of one token, group by group
  int group_experts() const { return experts / groups; }
  int stream_qkv() const { return qkv / streams; }
  int stream_heads() const { return heads / streams; }
  int stream_kv_heads() const { return kv_heads / streams; }
  // The stream whose M_h expert e adds to.
  int stream_of(int expert) const { return expert / (experts / streams); }
};

// One tensor of the checkpoint, under its name in a Hugging Face folder.
struct TensorSlot {
  std::string name;
  std::vector<std::int64_t> shape;
  std::size_t offset;  // in the flat array; a multiple of 16
  std::size_t size;
  double init_std;  // 0: starts as ones (norm weights)
  bool decay;       // weight decay applies: matrices, not norm weights, which have no reason to be near zero
};

struct LayerOffsets {
  std::size_t input_norm, q, k, v, o, post_norm, router;
  std::size_t q_norm = 0, k_norm = 0;
  std::vector<std::size_t> gate_up;  // of each expert: gate [F, D] and up [F, D], one below the other
  std::vector<std::size_t> down;     // of each expert: [D, F]
};

struct InitScales {
  double output = 1;     // multiplies the standard deviation of o_proj and down_proj
  double embedding = 1;  // multiplies that of embed_tokens
};

struct Layout {
  // Throws Error for a model that cannot be trained (one without a router).
  explicit Layout(const ModelConfig& model, const InitScales& scales = {});

  ModelConfig config;
  Dims dims;
  std::vector<TensorSlot> tensors;
  std::vector<LayerOffsets> layers;
  std::size_t embedding = 0, final_norm = 0, head = 0;  // head == embedding if they are tied
  std::size_t size = 0;                                 // of the flat array, padding included; padding stays zero
};

// Normal with a standard deviation of 0.02, residual outputs (o_proj, down_proj) divided by sqrt(2 L) (GPT-2's scheme:
// 2 L of them add up). A pure function of the seed: models of one shape start from the same numbers.
template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params);

}  // namespace foe::train
