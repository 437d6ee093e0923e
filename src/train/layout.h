// Where each parameter is in one flat array. Parameters, gradients and both moments of the optimiser have the same
// layout, so that work on all parameters is one loop over an array. What belongs to the heads of one stream is
// together, so that it can be on a rank of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe::train {

// The sizes of a model, under plain names. The letters are those of core/model_config.h.
//
// A rank may have some streams of a model alone, with their heads and experts (split.h). Then `streams`, `heads`,
// `kv_heads` and `qkv` are its own, and streams count from its first one; all else is the whole model's.
struct Dims {
  explicit Dims(const ModelConfig& config);
  Dims(const ModelConfig& config, Range own_streams);

  int hidden, layers, heads, kv_heads, head_dim, vocab;
  int experts, top_k, width;  // E, K, F
  int groups;                 // each token selects top_k / groups experts in each: H, or 1 if it selects across groups
  int streams;                // hidden states that attention reads: H if federated, otherwise 1
  int qkv;                    // (N + 2M) C: queries, keys and values of one token, stream by stream
  int all_streams;            // of all ranks
  int first_stream = 0;       // the first of this rank among them
  int group_experts() const { return experts / groups; }
  int stream_qkv() const { return qkv / streams; }
  int stream_heads() const { return heads / streams; }
  int stream_kv_heads() const { return kv_heads / streams; }
  int stream_experts() const { return experts / all_streams; }
  // Returns the stream to whose M_h an expert adds. That of another rank is not in [0, streams).
  int stream_of(int expert) const { return expert / stream_experts() - first_stream; }
  // Returns the experts of one stream, and of all streams of this rank.
  Range experts_of(int stream) const {
    return {(first_stream + stream) * stream_experts(), (first_stream + stream + 1) * stream_experts()};
  }
  Range own_experts() const { return {experts_of(0).begin, experts_of(streams - 1).end}; }
};

// Who computes a parameter's gradient, if ranks share the streams of a model.
enum class GradientOf {
  kEnds,    // the embedding, the last norm and the head: each shard has one rank
            // that computes its ends
  kAll,     // norms of all streams: the ranks add what each stream adds, so all of
            // them have it
  kStream,  // heads, experts and their scores: the rank that has the stream
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
  int parts;        // how many parts, of the same size, one after the other: what each
                    // stream's heads or experts have of it
  int columns = 0;  // if not 0, parts are columns, row-major, of a matrix with so many; otherwise they are rows
  GradientOf gradient = GradientOf::kStream;
  int stream = 0;           // kStream: that of the first part; the others follow
  bool everywhere = false;  // whether all streams need the parameter, and not only its own
};

// Arrays begin at multiples of 16 floats.
inline std::size_t padded(std::size_t size) {
  return (size + 15) / 16 * 16;
}

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
// so models of the same shape start from the same numbers. Of tensors that only their own streams need, it writes what
// these streams have.
template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params, Range streams);
template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params) {
  initialise(layout, seed, params, {0, layout.dims.streams});
}

}  // namespace foe::train
