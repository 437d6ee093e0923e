// Shapes that measurements run on, with random weights.
#pragma once

#include <string>

#include "core/model_config.h"

namespace foe {

struct Shape {
  ModelConfig config;  // the paper's: ordinary MoE, whole
  int groups;          // of its federated form
  int layers;          // of the whole model
  bool paper;          // not a folder's
};

// "paper-1b", "paper-7b" (arXiv 2605.06206, section 4), or a model folder for its config.json.
Shape load_shape(const std::string& name);

}  // namespace foe
