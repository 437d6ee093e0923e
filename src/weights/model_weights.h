// The weights of one rank's share, packed for the kernels. The embedding, and matrices that the file has packed
// already, stay in the mapped file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"
#include "weights/tensor_folder.h"
#include "weights/weight_formats.h"

namespace foe {

// The attention weights of one stream. In a federated model these are the heads of one group, otherwise all of this
// rank's heads.
struct StreamWeights {
  PackedMatrix q, k, v;  // [n*C, D], [m*C, D], [m*C, D], with the stream's n query and m KV heads
  PackedMatrix o;        // [D, n*C], with columns packed as output_blocks() says
};

struct ExpertWeights {
  PackedMatrix gate_up;  // pack_gate_up() of gate and up, [f, D] each
  PackedMatrix down;     // [D, f]
};

struct LayerWeights {
  std::vector<float> attention_norm_D, expert_norm_D;
  std::vector<float> q_norm, k_norm;  // QkNorm::kHead: [C]; kFull: this rank's part of [N*C], [M*C]; kNone: empty
  std::vector<StreamWeights> streams;
  PackedMatrix router_ED;               // f32, ExpertTable::columns() rows, whole on every rank; none in a dense model
  std::vector<float> selection_bias_E;  // of the scored experts; empty if the router has none
  std::vector<float> constants_AD;      // the constant experts' vectors
  std::vector<float> router_bias_E;     // if not empty, added to the scores: for measurements of skewed routing
  std::vector<ExpertWeights> experts;   // the experts Share::experts, each with its units Share::expert_width
};

struct Weights {
  std::unique_ptr<TensorFolder> folder;    // owns what embedding_VD points to,
  AlignedBuffer<std::byte> own_embedding;  // or this does, where there is no file
  StoredMatrix embedding_VD;
  PackingSpace packed;  // owns the matrices that are packed while loading
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm_D;
  PackedMatrix head_vD;  // rows Share::vocab

  std::size_t packed_bytes() const;
};

WeightFormats formats_of(const Weights& weights);

// Reads and packs the weights that `share` names, and reads no other tensor's data. Matrices that the folder has packed
// already are mapped. Matrices keep the format of the file unless `formats` names another; norms and router become f32.
// Throws Error if a tensor is missing, has the wrong shape or is not finite, or if it is packed in another format than
// `formats` asks for.
Weights load_weights(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config, const Share& share,
                     const FormatChoice& formats);

}  // namespace foe
