// The keys of a model's or a layer's experts in our own dialect of config.json, beside those that Hugging Face has:
//
//   "router": {"score": "softmax", "selection_bias": false, "n_group": 1, "topk_group": 1, "group_score": "max",
//              "top_p": 1.0, "norm": "none", "scale": 1.0}
//   "num_shared_experts": 0, "shared_gate": false, "constant_experts": 0, "copy_experts": 0, "zero_experts": 0,
//   "expert_storage": "own", "experts_of_layer": null
//
// These are the defaults. core/router_config.h and core/model_config.h say what they mean. A key is for all layers, so
// "experts_of_layer" is refused for the first one: a model may have another layer's experts only where its
// configuration is not read from a file.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"

namespace foe {

// Reads those of the keys that `object` has into `experts`, which keeps its values for the others. Throws Error naming
// the key, what was expected and what was found, also for an unknown key of the router.
void read_expert_keys(const nlohmann::json& object, ExpertsConfig& experts);

// Writes the keys whose values differ from the defaults.
void write_expert_keys(const ExpertsConfig& experts, nlohmann::ordered_json& object);

}  // namespace foe
