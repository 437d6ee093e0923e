// Reads and writes config.json of a model folder, in the dialects of Hugging Face's families of models
// (families/family.h), and in our own ("foe", docs/config.md). Ours has the keys `expert_groups`, `residual`,
// `group_sync`, `qk_norm`, `layers` and factors of embedding and logits, whose values the other dialects imply. These
// are read in every dialect, and a config that has one of them may name any `model_type`, and is read as ours. Our keys
// of attention and experts for all layers are read in ours alone.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"

namespace foe {

// Reads config.json, and the token ids from generation_config.json if that has them. The result is valid (validate() in
// core/model_config.h). Throws Error naming the file, the key, what was expected and what was found.
ModelConfig load_model_config(const std::string& model_dir);

// The same from text; error messages begin with `source`. Keys that ask for something that foe does not compute (biases
// of experts, other activations, what another family's layers have) are errors, unless they are set to have no effect.
// `unknown` gets the keys that are not known at all; those in `layers` and `router` are errors.
ModelConfig parse_model_config(std::string_view text, const std::string& source = "config.json",
                               std::vector<std::string>* unknown = nullptr);

// Returns what a user should be told of a folder's config.json: the keys that are not known, and the tensors that
// nothing reads.
std::vector<std::string> config_notes(const std::string& model_dir);

// Returns the text of a config.json. An ordinary MoE with full QK-norm and heads that are together as wide as the model
// is written as "olmoe", so that transformers can load it; any other model is written as "foe". parse_model_config()
// returns the same config, except for its model_type. Throws Error for a config for which the keys do not suffice.
std::string model_config_json(const ModelConfig& config);

}  // namespace foe
