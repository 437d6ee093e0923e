// Configurations of each family of models, for tests to change.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "temp_folder.h"
#include "weights/config_json.h"

namespace foe {

using nlohmann::json;

// The keys that every family has.
inline json common() {
  return {
      {"vocab_size", 40},         {"hidden_size", 16},        {"intermediate_size", 12},       {"num_hidden_layers", 2},
      {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"max_position_embeddings", 64}, {"rms_norm_eps", 1e-5},
      {"hidden_act", "silu"}};
}

inline json with(json root, const json& more) {
  root.update(more);
  return root;
}

inline json olmoe() {
  return with(common(), {{"model_type", "olmoe"},
                         {"attention_bias", false},
                         {"clip_qkv", nullptr},
                         {"num_experts", 4},
                         {"num_experts_per_tok", 2},
                         {"norm_topk_prob", false},
                         {"rope_theta", 10000.0},
                         {"rope_scaling", nullptr},
                         {"tie_word_embeddings", false},
                         {"eos_token_id", 7}});
}

inline json mixtral() {
  return with(common(), {{"model_type", "mixtral"},
                         {"head_dim", nullptr},
                         {"num_local_experts", 4},
                         {"num_experts_per_tok", 2},
                         {"sliding_window", nullptr},
                         {"rope_theta", 1e6}});
}

inline json qwen3_moe() {
  return with(common(), {{"model_type", "qwen3_moe"},
                         {"decoder_sparse_step", 1},
                         {"head_dim", 8},
                         {"mlp_only_layers", json::array()},
                         {"moe_intermediate_size", 6},
                         {"norm_topk_prob", true},
                         {"num_experts", 4},
                         {"num_experts_per_tok", 2},
                         {"sliding_window", nullptr},
                         {"use_sliding_window", false}});
}

inline json foe_model() {
  return with(common(), {{"model_type", "foe"},
                         {"num_experts", 4},
                         {"num_experts_per_tok", 2},
                         {"moe_intermediate_size", 6},
                         {"qk_norm", "full"},
                         {"expert_groups", 2},
                         {"residual", "federated"},
                         {"group_sync", "sum"}});
}

inline ModelConfig parse(const json& root) {
  return parse_model_config(root.dump());
}

inline std::string error_with(const json& root) {
  return error_of([&] { parse(root); });
}

}  // namespace foe
