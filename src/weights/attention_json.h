// The keys of attention in our own dialect of config.json, for all layers or, in the key "layers", for some:
//
//   "num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim": 0 (0: head_dim), "qkv_bias": false,
//   "output_bias": false, "qk_norm": "none", "sliding_window": 0, "sinks": false, "partial_rotary_factor": 1.0,
//   "rope_interleaved": false, "rope_theta": 10000.0, "rope_f32": false, "rope_scaling": null, "attention_scale": 0,
//   "attn_logit_softcapping": 0, "attention_kind": "grouped"
//
// With their defaults. core/model_config.h says what they mean, and docs/config.md has them as a table.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"

namespace foe {

// All of the keys above.
std::vector<std::string> attention_keys();

// Reads those of the keys that `object` has into `attention`, which keeps its values for the others. Throws Error
// naming the key, what was expected and what was found.
void read_attention_keys(const nlohmann::json& object, AttentionConfig& attention);

// Writes the keys whose values differ from those of `other`.
void write_attention_keys(const AttentionConfig& attention, const AttentionConfig& other,
                          nlohmann::ordered_json& object);

}  // namespace foe
