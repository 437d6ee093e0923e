// What the tensors of a checkpoint are called, in the families that we read. Whatever its family, a model has the same
// shapes; a federated model has an ordinary one's, of which each group owns rows or columns.
//
//            router                     experts
//   OLMoE    mlp.gate                   mlp.experts.E.{gate,up,down}_proj         (and Qwen3-MoE, and ours)
//   Mixtral  block_sparse_moe.gate      block_sparse_moe.experts.E.{w1,w3,w2}     (gate, up, down)
//   fused    either                     mlp.experts.{gate_up_proj,down_proj}      [E, 2F, D] gate first, [E, D, F]
//   dense                               mlp.{gate,up,down}_proj
//
// Names are told by which of them are there. Fused experts, transformers 5's form in memory, have no ".weight".
#pragma once

#include <optional>
#include <string>

#include "core/model_config.h"
#include "weights/checkpoint.h"

namespace foe {

// Shapes are [out, in], row-major, as in torch's nn.Linear. Legend: core/model_config.h.
struct LayerTensors {
  Tensor input_norm;                     // [D]
  std::optional<Tensor> q_norm, k_norm;  // none; head: [C], [C]; full: [N*C], [M*C]
  Tensor post_attention_norm;            // [D]
  std::optional<Tensor> router;          // [E, D]; none in a dense model
};

struct AttentionTensors {
  Tensor q, k, v;  // [N*C, D], [M*C, D], [M*C, D]; head h has rows [h*C, (h+1)*C)
  Tensor o;        // [D, N*C]
};

struct ExpertTensors {
  Tensor gate, up;  // [F, D]
  Tensor down;      // [D, F]
};

struct EndTensors {
  Tensor embed;  // [V, D]
  Tensor norm;   // [D]
};

// "model.layers.3."
std::string layer_prefix(const ModelConfig& config, int layer);

// All throw Error naming the tensor, the expected shape and what was found. 0 <= layer < L, 0 <= expert < experts().
LayerTensors layer_tensors(const Checkpoint& checkpoint, const ModelConfig& config, int layer);
AttentionTensors attention_tensors(const Checkpoint& checkpoint, const ModelConfig& config, int layer);
ExpertTensors expert_tensors(const Checkpoint& checkpoint, const ModelConfig& config, int layer, int expert);
EndTensors end_tensors(const Checkpoint& checkpoint, const ModelConfig& config);
// [V, D]; the embedding where they are tied.
Tensor head_tensor(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace foe
