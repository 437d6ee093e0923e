// The weights of one rank's share, packed for the kernels. The embedding, and matrices that the file has packed
// already, stay in the mapped file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model_tensors.h"
#include "kernels/products/gemm.h"
#include "weights/expert_store.h"
#include "weights/tensor_folder.h"
#include "weights/weight_formats.h"

namespace foe {

// The attention weights of one stream. In a federated model these are the heads of one group, otherwise all of this
// rank's heads.
struct StreamWeights {
  PackedMatrix q, k, v;  // [n*C, D], [m*C, D], [m*W, D], with the stream's n query and m KV heads
  PackedMatrix o;        // [D, n*W], with columns packed as output_blocks() says
};

// Vectors that the model does not have are empty. Of those that are split over ranks (core/model_tensors.h), these have
// this rank's part: that of its n query and m KV heads.
struct LayerWeights {
  // A block has an output norm if it has a norm after it, and none before it if that is its only one.
  std::vector<float> attention_norm_D, attention_output_norm_D;
  std::vector<float> expert_norm_D, expert_output_norm_D;
  std::vector<float> q_bias, k_bias, v_bias, o_bias_D;  // [n*C], [m*C], and [m] times the width of a value
  std::vector<float> q_norm, k_norm;                    // QkNorm::kHead: [C]; kFull: [n*C], [m*C]
  std::vector<float> sinks_n;
  std::vector<StreamWeights> streams;
  PackedMatrix router_ED;  // f32, ExpertTable::columns() rows, whole on every rank; none in a dense model
  std::vector<float> router_bias_E, selection_bias_E;  // of the scored experts
  std::vector<float> constants_AD;                     // the constant experts' vectors
};

// Calls f(role, vector) for each of a layer's vectors that are tensors of the model.
template <typename F>
void for_each_vector(LayerWeights& w, F&& f) {
  f(TensorRole::kAttentionNorm, w.attention_norm_D);
  f(TensorRole::kQBias, w.q_bias);
  f(TensorRole::kKBias, w.k_bias);
  f(TensorRole::kVBias, w.v_bias);
  f(TensorRole::kOBias, w.o_bias_D);
  f(TensorRole::kQNorm, w.q_norm);
  f(TensorRole::kKNorm, w.k_norm);
  f(TensorRole::kSinks, w.sinks_n);
  f(TensorRole::kAttentionOutputNorm, w.attention_output_norm_D);
  f(TensorRole::kExpertNorm, w.expert_norm_D);
  f(TensorRole::kRouterBias, w.router_bias_E);
  f(TensorRole::kSelectionBias, w.selection_bias_E);
  f(TensorRole::kConstants, w.constants_AD);
  f(TensorRole::kExpertOutputNorm, w.expert_output_norm_D);
}

struct Weights {
  std::unique_ptr<TensorFolder> folder;    // owns what embedding_VD points to,
  AlignedBuffer<std::byte> own_embedding;  // or this does, where there is no file
  StoredMatrix embedding_VD;
  PackingSpace packed;  // owns the matrices that are packed while loading
  std::vector<LayerWeights> layers;
  std::unique_ptr<ExpertStore> experts;  // the experts Share::experts(), each with its units Share::expert_width()
  std::vector<float> final_norm_D;
  PackedMatrix head_vD;  // rows Share::vocab
  WeightFormats formats;

  std::size_t packed_bytes() const;
};

// Reads and packs the weights that `share` names, and reads no other tensor's data. Matrices that the folder has packed
// already are mapped. Matrices keep the format of the file unless `formats` names another; norms and router become f32.
// Throws Error if a tensor is missing, has the wrong shape or is not finite, if there is one that the model does not
// have, or if it is packed in another format than `formats` asks for.
Weights load_weights(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config, const Share& share,
                     const FormatChoice& formats);

}  // namespace foe
