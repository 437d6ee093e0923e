// The object that says how RoPE is scaled: "rope_scaling" in our own dialect and in transformers 4, "rope_parameters"
// in transformers 5. core/rope.h says what its keys mean:
//
//   "rope_type" or "type": "default", "linear", "dynamic", "llama3", "yarn" or "longrope"
//   "factor", "original_max_position_embeddings", "attention_factor", and of llama3 "low_freq_factor",
//   "high_freq_factor", of yarn "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", of longrope
//   "short_factor", "long_factor"
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"

namespace foe {

// How long texts are, where the object does not say it.
struct RopeContext {
  int positions = 0;           // max_position_embeddings; 0: the object must say original_max_position_embeddings
  int original_positions = 0;  // what is beside the object, which wins; 0: nothing
};

// Reads an object, which messages call `name`, into rope_factor (of "linear") and rope_scaling. Keys of other types of
// scaling are errors; "rope_theta" and "partial_rotary_factor", which may be in the same object, are the caller's.
// Throws Error naming the key, what was expected and what was found.
void read_rope_scaling(const nlohmann::json& object, const std::string& name, const RopeContext& context,
                       AttentionConfig& attention);

// Returns the object of what the attention has, with all of its keys.
nlohmann::ordered_json write_rope_scaling(const AttentionConfig& attention);

}  // namespace foe
