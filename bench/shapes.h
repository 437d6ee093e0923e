// Shapes for measurements with random weights.
#pragma once

#include <string>

#include "core/model_config.h"

namespace foe {

struct Shape {
  ModelConfig config;  // of a built-in shape: an ordinary MoE with all layers
  int groups;          // the groups of its federated form
  int layers;          // the layers of the whole model
  bool built_in;       // false: from a model folder
};

// The names that load_shape() knows, for --help.
inline constexpr const char* kShapesHelp =
    "shape of the model: paper-1b, paper-7b, olmoe, qwen3-moe-24l, or a model folder whose config.json is read";

// Returns "paper-1b", "paper-7b" (arXiv 2605.06206, section 4), "olmoe" (OLMoE-1B-7B), "qwen3-moe-24l", or the shape in
// the config.json of a model folder. Throws Error for anything else.
Shape load_shape(const std::string& name);

// Returns the shape with experts that are selected in so many groups: federated, with sums over groups, or with a
// shared residual and nothing that only a federation has.
ModelConfig in_groups(ModelConfig shape, int groups, bool federated);

}  // namespace foe
