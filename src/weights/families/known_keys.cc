// What is known of keys that the reading of a family has not read: families of transformers have each of them.
#include <algorithm>

#include "weights/families/config_keys.h"
#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

// They change no logits: training, how weights are initialised, what other programs do with the model, and special
// tokens that only a tokenizer knows of.
constexpr const char* kHarmless[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "cache_implementation",
    "decoder_start_token_id",
    "dtype",
    "embd_pdrop",
    "embedding_dropout",
    "eod_token_id",
    "ep_size",
    "experts_implementation",
    "hidden_dropout",
    "id2label",
    "init_std",
    "initializer_range",
    "is_decoder",
    "label2id",
    "max_window_layers",  // counts with use_sliding_window alone
    "model_type",
    "moe_drop_tokens",
    "moe_random_routing_dropped_token",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    "sep_token_id",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
};

// They change what is computed, unless they have one of these values, of which a list is JSON.
struct Neutral {
  const char* key;
  const char* values;
};
constexpr Neutral kNeutral[] = {
    {"activation_function", "[]"},
    {"add_cross_attention", "[false]"},
    {"alibi", "[false]"},
    {"attention_bias", "[false]"},
    {"attention_chunk_size", "[]"},
    {"attention_k_eq_v", "[false]"},
    {"attention_multiplier", "[]"},
    {"attention_out_bias", "[false]"},
    {"attention_value_scale", "[1]"},
    {"attn_logit_softcapping", "[]"},
    {"attn_temperature_tuning", "[false, 0]"},
    {"attn_type_list", "[]"},
    {"bias", "[false]"},
    {"chunk_size_feed_forward", "[0]"},
    {"clip_qkv", "[]"},
    {"compression_config", "[]"},
    {"conv_bias", "[false]"},
    {"cross_layer_attention", "[false]"},
    {"decoder_sparse_step", "[1]"},
    {"embedding_multiplier", "[1]"},
    {"embedding_scale", "[1]"},
    {"enable_moe_block", "[false]"},
    {"final_logit_softcapping", "[]"},
    {"first_k_dense_replace", "[0]"},
    {"full_attn_idxs", "[]"},
    {"hidden_activation", "[\"silu\"]"},
    {"hidden_size_per_layer_input", "[0]"},
    {"index_topk", "[]"},
    {"intermediate_size", "[]"},
    {"is_encoder_decoder", "[false]"},
    {"kv_lora_rank", "[]"},
    {"layer_rope_theta", "[]"},
    {"lm_head_bias", "[false]"},
    {"lm_head_multiplier", "[1]"},
    {"logit_scale", "[1]"},
    {"logits_scaling", "[1]"},
    {"logits_soft_cap", "[]"},
    {"mlp_bias", "[false]"},
    {"mlp_layer_types", "[]"},
    {"mlp_multipliers", "[]"},
    {"mlp_only_layers", "[[]]"},
    {"moe_apply_router_weight_on_input", "[false]"},
    {"moe_intermediate_size", "[]"},
    {"moe_k", "[]"},
    {"moe_layer_freq", "[1]"},
    {"moe_layer_num_skipped", "[0]"},
    {"moe_num_experts", "[0]"},
    {"moe_num_shared_experts", "[0]"},
    {"moe_topk", "[]"},
    {"n_group", "[1]"},
    {"n_routed_experts", "[]"},
    {"n_shared_experts", "[0]"},
    {"no_rope_layer_interval", "[]"},
    {"no_rope_layers", "[[]]"},
    {"norm_topk_prob", "[]"},
    {"num_dense_layers", "[0]"},
    {"num_experts", "[0]"},
    {"num_kv_shared_layers", "[0]"},
    {"num_local_experts", "[0]"},
    {"num_shared_expert", "[0]"},
    {"num_shared_experts", "[0]"},
    {"original_max_position_embeddings", "[]"},
    {"parallel_attn", "[false]"},
    {"partial_rotary_factor", "[1]"},
    {"per_layer_config", "[]"},
    {"position_embedding_type", "[\"rope\"]"},
    {"q_lora_rank", "[]"},
    {"qk_layernorm", "[false]"},
    {"qk_rope_head_dim", "[]"},
    {"qkv_bias", "[false]"},
    {"quantization_config", "[]"},
    {"query_pre_attn_scalar", "[]"},
    {"residual_multiplier", "[1]"},
    {"rope_interleave", "[]"},
    {"rope_local_base_freq", "[]"},
    {"rope_parameters", "[]"},
    {"rope_scaling", "[]"},
    {"rope_theta", "[]"},
    {"rotary_dim", "[]"},
    {"rotary_pct", "[1]"},
    {"routed_scaling_factor", "[1]"},
    {"router_scaling_factor", "[1]"},
    {"scale_attn_by_inverse_layer_idx", "[false]"},
    {"scale_attn_weights", "[true]"},
    {"scale_depth", "[]"},
    {"scale_emb", "[1]"},
    {"scale_embedding", "[false]"},
    {"scoring_func", "[\"softmax\"]"},
    {"shared_expert_intermediate_size", "[0]"},
    {"shared_intermediate_size", "[0]"},
    {"sliding_window_pattern", "[]"},
    {"swiglu_alpha", "[]"},
    {"swiglu_limit", "[]"},
    {"text_config", "[]"},
    {"topk_group", "[1]"},
    {"topk_method", "[\"greedy\"]"},
    {"use_bias", "[false]"},
    {"use_bidirectional_attention", "[false]"},
    {"use_cla", "[false]"},
    {"use_mla", "[false]"},
    {"use_mrope", "[false]"},
    {"use_parallel_residual", "[false]"},
    {"use_qk_norm", "[false]"},
    {"use_qkv_bias", "[false]"},
    {"v_head_dim", "[]"},
    {"vision_config", "[]"},
    {"zero_expert_num", "[0]"},
};

bool is_harmless(std::string_view key) {
  return std::ranges::find(kHarmless, key) != std::end(kHarmless);
}

// A window in a family that has none. transformers ignores it, but whoever has written it may have meant it.
void check_window(const ConfigKeys& keys, std::string_view model_type) {
  const json* window = keys.value("sliding_window");
  if (!window || !keys.flag("use_sliding_window", true)) return;
  const int positions = keys.integer("max_position_embeddings");
  if (const int size = keys::as_int(*window, "sliding_window"); size < positions)
    fail("sliding_window: expected null or at least max_position_embeddings = {} in a model of type {}, got {}",
         positions, model_type, size);
}

void check_layer_types(const json& types) {
  const auto full = [](const json& type) { return type == "full_attention"; };
  if (!types.is_array() || !std::ranges::all_of(types, full))
    fail("layer_types: expected a list of \"full_attention\" alone with sliding_window = 0, got {}", excerpt(types));
}

// Returns whether the key is one of those that change what is computed. Throws Error unless its value changes nothing.
bool check_neutral(const std::string& key, const json& value, std::string_view model_type) {
  const auto known = std::ranges::find_if(kNeutral, [&](const Neutral& neutral) { return neutral.key == key; });
  if (known == std::end(kNeutral)) return false;
  const json values = json::parse(known->values);
  if (std::ranges::find(values, value) != values.end()) return true;
  std::string expected = "null";
  for (const json& other : values) expected = other.dump();
  fail("{}: expected {} in a model of type {} (nothing else is computed), got {}", key, expected, model_type,
       excerpt(value));
}

}  // namespace

std::vector<std::string> check_unread_keys(const ConfigKeys& keys, std::string_view model_type) {
  std::vector<std::string> unknown;
  const std::vector<std::string> unread = keys.unread();
  for (const std::string& key : unread) {
    const json& value = keys.root().at(key);
    if (key == "sliding_window")
      check_window(keys, model_type);
    else if (key == "layer_types")
      check_layer_types(value);
    else if (!check_neutral(key, value, model_type) && !is_harmless(key))
      unknown.push_back(key);
  }
  return unknown;
}

}  // namespace foe
