// Where each parameter is in one flat array. Parameters, gradients and both moments of the optimiser have the same
// layout, so that work on all parameters is one loop over an array. What belongs to the heads of one stream is
// together, so that it could be on a rank of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/model_config.h"

namespace foe::train {

// The sizes of a model, under plain names. The letters are those of core/model_config.h.
struct Dims {
  explicit Dims(const ModelConfig& config);

  int hidden, layers, heads, kv_heads, head_dim, vocab;
  int experts, top_k, width;  // E, K, F
  int groups;                 // each token selects top_k / groups experts in each: H, or 1 if it selects across groups
  int streams;                // hidden states that attention reads: H if federated, otherwise 1
  int qkv;                    // (N + 2M) C: queries, keys and values of one token, stream by stream
  int group_experts() const { return experts / groups; }
  int stream_qkv() const { return qkv / streams; }
  int stream_heads() const { return heads / streams; }
  int stream_kv_heads() const { return kv_heads / streams; }
  // Returns the stream to whose M_h an expert adds.
  int stream_of(int expert) const { return expert / (experts / streams); }
};

// One tensor of the model, under its name in a Hugging Face folder.
struct TensorSlot {
  std::string name;
  std::vector<std::int64_t> shape;
  std::size_t offset;  // in the flat array; a multiple of 16
  std::size_t size;
  double init_std;  // of a matrix; a norm weight starts as ones
  bool decay;       // whether weight decay applies: to matrices, but not to norm weights, which should not be near 0
  int stage;        // of the backward pass, at whose end this tensor's gradient is complete
  int parts;        // how many parts, of the same size, one after the other: of a stream's heads, one for each stream
  int columns = 0;  // if not 0, parts are columns, row-major, of a matrix with so many; otherwise they are rows
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

// The backward pass in stages: the head and the last norm, the layers from the last to the first, the embedding.
struct Stages {
  static int of_layer(int layer, int layers) { return layers - layer; }
  static int of_embedding(int layers) { return layers + 1; }
  static int count(int layers) { return layers + 2; }
};

struct Layout {
  // Throws Error for a model that cannot be trained, such as one without a router.
  explicit Layout(const ModelConfig& model, const InitScales& scales = {});

  ModelConfig config;
  Dims dims;
  std::vector<TensorSlot> tensors;
  std::vector<LayerOffsets> layers;
  std::size_t embedding = 0, final_norm = 0, head = 0;  // head == embedding if they are tied
  std::size_t size = 0;                                 // of the flat array, with padding, which stays zero
};

// Writes a tensor as a model folder has it: row-major, whatever its parts are.
template <typename T>
void copy_row_major(const TensorSlot& tensor, const T* params, T* out);

// The reverse: reads a tensor as a model folder has it.
template <typename T>
void copy_from_row_major(const TensorSlot& tensor, const T* in, T* params);

// Writes initial parameters: normally distributed with a standard deviation of 0.02, which for o_proj and down_proj is
// divided by sqrt(2 L), because 2 L of their outputs are added (GPT-2's scheme). They are a pure function of the seed,
// so models of the same shape start from the same numbers.
template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params);

}  // namespace foe::train
