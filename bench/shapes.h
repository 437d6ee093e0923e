// Shapes that measurements run on, with random weights.
#pragma once

#include <string>

#include "core/model_config.h"

namespace foe {

struct Shape {
  ModelConfig config;  // built-in ones: ordinary MoE, whole
  int groups;          // of its federated form
  int layers;          // of the whole model
  bool built_in;       // not a folder's
};

// For the command line: the names that load_shape() knows.
inline constexpr const char* kShapes =
    "paper-1b, paper-7b, olmoe, qwen3-moe-24l, or a model folder for its config.json";

// "paper-1b", "paper-7b" (arXiv 2605.06206, section 4), "olmoe" (OLMoE-1B-7B), "qwen3-moe-24l", or a model folder for
// its config.json.
Shape load_shape(const std::string& name);

}  // namespace foe
