// The keys of a model's or a layer's experts in our own dialect of config.json, beside those that Hugging Face has:
//
//   "router": {"score": "softmax", "selection_bias": false, "across_groups": false, "n_group": 1, "topk_group": 1,
//              "group_score": "max", "top_p": 1.0, "norm": "none", "norm_min": 0.0, "scale": 1.0, "bias": false}
//   "num_shared_experts": 0, "shared_intermediate_size": 0, "shared_gate": false, "constant_experts": 0,
//   "copy_experts": 0, "zero_experts": 0, "expert_storage": "own", "experts_of_layer": null
//   "swiglu_alpha": 1.0, "swiglu_limit": 0.0, "up_offset": 0.0, "mlp_bias": false, also of dense layers
//
// These are the defaults. core/router_config.h and core/model_config.h say what they mean. "experts_of_layer" is only
// of use in "layers" (layers_json.h): the first layer has none below it.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"

namespace foe {

// Reads those of the keys that `object` has into `experts`, which keeps its values for the others. Throws Error naming
// the key, what was expected and what was found, also for an unknown key of the router.
void read_expert_keys(const nlohmann::json& object, ExpertsConfig& experts);

// Writes the keys whose values differ from those of `other`, which must have a router if the experts have one.
void write_expert_keys(const ExpertsConfig& experts, const ExpertsConfig& other, nlohmann::ordered_json& object);

// All keys of experts: these, and those of Hugging Face's dialects that ours has, too.
std::vector<std::string> expert_keys();

// The same for the keys of any feed-forward network, an expert or a dense layer: "hidden_act", and the last line above.
std::vector<std::string> network_keys();
void read_network_keys(const nlohmann::json& object, ExpertsConfig& network);
void write_network_keys(const ExpertsConfig& network, const ExpertsConfig& other, nlohmann::ordered_json& object);

}  // namespace foe
