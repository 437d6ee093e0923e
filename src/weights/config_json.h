// config.json of a model folder, in the dialects of Hugging Face's OLMoE, Mixtral, Qwen3-MoE, Llama, Mistral and Qwen3,
// and in ours ("foe"), which says with `expert_groups`, `residual`, `group_sync` and `qk_norm` what theirs imply.
// Our keys are read in every dialect; a config that has one of them may name any `model_type`, and is read as ours.
#pragma once

#include <string>
#include <string_view>

#include "core/model_config.h"

namespace foe {

// Reads config.json, and the token ids from generation_config.json where that has them. Throws Error naming the file,
// the key, what was expected and what was found; the result is valid (validate() in core/model_config.h).
ModelConfig load_model_config(const std::string& model_dir);

// The same from text; `source` begins each message. Keys that change what a model computes in ways that we do not
// (sliding windows, biases, other activations or RoPE scalings, dense layers among sparse ones) are errors, unless they
// are set to have no effect. Other unknown keys are ignored.
ModelConfig parse_model_config(std::string_view text, const std::string& source = "config.json");

// Text for config.json. An ordinary MoE with full QK-norm and heads as wide as the model is what transformers calls
// "olmoe", and is written as that, so that transformers loads it; everything else is written as "foe".
// parse_model_config() gives `config` back, but for its model_type.
std::string model_config_json(const ModelConfig& config);

}  // namespace foe
