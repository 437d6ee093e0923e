// One rank's part of a model.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/model_config.h"
#include "kernels/formats/kv_format.h"
#include "kernels/products/gemm.h"
#include "placement/placement.h"
#include "weights/model_weights.h"
#include "weights/output_blocks.h"

namespace foe {

// The sums that a layer's products end in (core/sum_blocks.h), and views of its weights that are cut into their terms.
struct LayerSums {
  // This rank's blocks of heads. Their `at` and `depth` count as if the streams had one matrix together.
  std::vector<OutputBlock> o_blocks = {};
  std::vector<PackedMatrix> o = {};  // attention's output projection, cut into these blocks
  SumPlan experts;
  std::vector<int> down_begin = {};  // a dense layer: where this rank's blocks of hidden units begin, and the last ends
  // Other layers: which experts each of this rank's partial sums adds, and which affine experts each local stream adds,
  // none if there are none.
  std::vector<Range> expert_parts = {}, affine_parts = {};
};

// Immutable once it is made. Owns its weights.
struct Model {
  ModelConfig config;
  Placement placement;
  int rank = 0;
  Weights weights;
  std::string identity = {};  // tensors_digest() of its folder; empty if it was not read from a folder

  SumPlan attention_sums;
  std::vector<LayerSums> layers = {};

  const Share& share() const { return placement.ranks[rank]; }
  // The layers that this rank runs.
  Range own_layers() const {
    return {share().stage_layers.begin, std::min(share().stage_layers.end, config.num_layers())};
  }
  int query_heads() const { return share().kv_heads.size() * config.heads().per_kv_head(); }
  KvShape kv_shape(KvType type, AttentionType attention = AttentionType::kF32) const;
};

// Makes a rank's model from weights that are loaded already.
Model make_model(ModelConfig config, Placement placement, int rank, Weights weights);

// Returns the formats that the weights have in memory, as in attention=bf16,experts=int4,head=bf16; empty for a rank
// without any.
std::string formats_in_memory(const Model& model);

// Loads the share of a model folder that this rank of `comm` holds, with `threads` threads. Weights get the formats
// that `formats` names; others keep the format of the file. Throws Error if the folder is not a model, or if the plan
// does not fit the model or the number of ranks.
Model load_model(const std::string& model_dir, const PlanChoice& plan, const Communicator& comm,
                 const FormatChoice& formats = {}, int threads = 1);

}  // namespace foe
