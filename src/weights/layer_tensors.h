// Finds the tensors of a model by their names in each family of models. The shapes are the same in all families. A
// federated model has the tensors of an ordinary model, of which each group owns rows or columns.
//
//            router                     experts
//   OLMoE    mlp.gate                   mlp.experts.E.{gate,up,down}_proj         (and Qwen3-MoE, and ours)
//   Mixtral  block_sparse_moe.gate      block_sparse_moe.experts.E.{w1,w3,w2}     (gate, up, down)
//   fused    either                     mlp.experts.{gate_up_proj,down_proj}      [E, 2F, D] gate first, [E, D, F]
//   dense                               mlp.{gate,up,down}_proj
//   slices   mlp.gate                   mlp.{gate,up,down}_proj                   [E*F, D], [D, E*F]
//   shared   mlp.shared_expert_gate     mlp.shared_experts.{gate,up,down}_proj    [S*F, D], [D, S*F]
//   affine   mlp.constant_experts.gates, mlp.constant_experts.vectors             [2A, D], [A, D]
//
// S and A are the numbers of shared and constant experts. mlp.gate has a row for each scored expert
// (core/expert_table.h), and mlp.gate.e_score_correction_bias is the selection bias.
// Which names a folder uses is found out by which of them exist. Fused experts, as transformers 5 has them in
// memory, have no ".weight".
#pragma once

#include <optional>
#include <string>

#include "core/model_config.h"
#include "weights/tensor_folder.h"

namespace foe {

// Shapes are [out, in], row-major, as in torch's nn.Linear. Legend: core/model_config.h.
struct LayerTensors {
  Tensor input_norm;                                // [D]
  std::optional<Tensor> q_norm, k_norm;             // QkNorm::kHead: [C], [C]; kFull: [N*C], [M*C]
  Tensor post_attention_norm;                       // [D]
  std::optional<Tensor> router;                     // [scored experts, D]; none in a dense model
  std::optional<Tensor> selection_bias;             // [scored experts]
  std::optional<Tensor> constant_gates, constants;  // [2A, D], [A, D]
  std::optional<Tensor> shared_gate;                // [1, D]
};

struct AttentionTensors {
  Tensor q, k, v;  // [N*C, D], [M*C, D], [M*C, D]; head h has rows [h*C, (h+1)*C)
  Tensor o;        // [D, N*C]
};

struct ExpertTensors {
  Tensor gate, up;      // [F, D]
  Tensor down;          // [D, F], or of several experts, of which this one has F columns from
  int down_column = 0;  // this one on
};

struct EndTensors {
  Tensor embed;  // [V, D]
  Tensor norm;   // [D]
};

// Returns the beginning of a layer's names, such as "model.layers.3.".
std::string layer_prefix(const ModelConfig& config, int layer);

// These return views of the folder's files. They throw Error naming the tensor, the expected shape and what was
// found. 0 <= layer < L, 0 <= expert < ExpertTable::with_rows().
LayerTensors layer_tensors(const TensorFolder& folder, const ModelConfig& config, int layer);
AttentionTensors attention_tensors(const TensorFolder& folder, const ModelConfig& config, int layer);
ExpertTensors expert_tensors(const TensorFolder& folder, const ModelConfig& config, int layer, int expert);
EndTensors end_tensors(const TensorFolder& folder, const ModelConfig& config);
// Returns the token head [V, D], which is the embedding if the two are tied.
Tensor head_tensor(const TensorFolder& folder, const ModelConfig& config);

}  // namespace foe
