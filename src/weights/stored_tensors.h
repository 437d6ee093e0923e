// Finds the tensors of a model (core/model_tensors.h) in a folder, by the names that families of models give them:
//
//   ours      as in the table: OLMoE, Qwen3-MoE, dense models
//   Mixtral   block_sparse_moe.gate, block_sparse_moe.experts.E.{w1,w3,w2} (gate, up, down)
//   fused     mlp.experts.{gate_up_proj,down_proj} [E, 2F, D] gate first, [E, D, F]
//   gpt-oss   mlp.experts.gate_up_proj [E, D, 2F], transposed, gate and up in turn, or in MXFP4; biases likewise
//   Phi-3     self_attn.qkv_proj, mlp.gate_up_proj: the rows of several matrices, one below the other
//   Granite   block_sparse_moe.{input_linear,output_linear}, shared_mlp.{input_linear,output_linear}: both of these
//   others    have other names of routers, selection biases, shared experts and QK norms
//
//   GGUF      blk.L.attn_q.weight and so on (gguf/gguf_names.cc)
//
// Which names a folder uses is found out by which of them exist. Fused experts, as transformers 5 has them in memory,
// have no ".weight". A matrix may also be packed already (packed_tensors.h).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/model_tensors.h"
#include "weights/tensor_folder.h"

namespace foe {

// A tensor of the model as a view of a file or, where it is stored in another order, as a copy. Where experts are
// slices of one network, a down projection is its columns [column, column + F).
struct StoredTensor {
  Tensor tensor;
  int column = 0;
};

class StoredTensors {
 public:
  // `folder` must outlive this.
  StoredTensors(const TensorFolder& folder, const ModelConfig& config)
      : folder_(folder), table_(config), unused_(config.unused_tensors) {}

  const TensorTable& table() const { return table_; }
  const TensorFolder& folder() const { return folder_; }
  // Returns one of a row's tensors. Throws Error naming the tensor, the expected shape and what was found.
  StoredTensor find(const ModelTensor& row, int index = 0) const;
  // Throws Error where find() does, without reading weights, and returns the names of the tensors that it is in.
  std::vector<std::string> check(const ModelTensor& row, int index = 0) const;
  // Whether a folder of this model may have a tensor of this name, which nothing reads.
  bool is_unused(std::string_view name) const;
  // The token head [V, D]: of a model that ties it, the embedding, unless the folder has a head, too.
  Tensor head() const;

 private:
  const TensorFolder& folder_;
  TensorTable table_;
  std::vector<std::string> unused_;  // the names' beginnings
};

}  // namespace foe
