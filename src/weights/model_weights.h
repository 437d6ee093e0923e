// The weights of one rank's share, packed for the kernels. The embedding stays in the mapped file, and so do matrices
// that it has packed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"
#include "weights/checkpoint.h"
#include "weights/weight_formats.h"

namespace foe {

// The attention weights of one stream: one group's heads in a federated model, else all of this rank's heads.
struct StreamWeights {
  PackedMatrix q, k, v;  // [n*C, D], [m*C, D], [m*C, D], with the stream's n query and m KV heads
  PackedMatrix o;        // [D, n*C], as output_blocks() says
};

struct ExpertWeights {
  PackedMatrix gate_up;  // pack_gate_up of two [f, D]
  PackedMatrix down;     // [D, f]
};

struct LayerWeights {
  std::vector<float> attention_norm_D, expert_norm_D;
  std::vector<float> q_norm, k_norm;  // head: [C]; full: this rank's part of [N*C], [M*C]; none: empty
  std::vector<StreamWeights> streams;
  PackedMatrix router_ED;              // f32, whole on every rank; empty in a dense model
  std::vector<float> router_bias_E;    // added to its scores where it is not empty: for measurements of skewed routing
  std::vector<ExpertWeights> experts;  // of Share::experts, in order, their Share::expert_width
};

struct Weights {
  std::unique_ptr<Checkpoint> checkpoint;  // owns what embedding_VD points to,
  AlignedBuffer<std::byte> own_embedding;  // or this does, where there is no file
  StoredMatrix embedding_VD;
  PackingSpace packed;  // what is packed while it is loaded
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm_D;
  PackedMatrix head_vD;  // rows Share::vocab

  std::size_t packed_bytes() const;
};

WeightFormats formats_of(const Weights& weights);

// Reads and packs what `share` names, touching no other tensor's data; what the folder has packed stays where it is.
// Matrices keep their file's format unless `formats` names one; norms and router become f32. Throws Error for a missing
// tensor, a wrong shape, or a packed format that is not the one asked for.
Weights load_weights(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config, const Share& share,
                     const FormatChoice& formats);

}  // namespace foe
