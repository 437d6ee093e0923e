#include "weights/gguf/architectures.h"

#include <iterator>

namespace foe {
namespace {

constexpr GgufKey kCommonKeys[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"rope.freq_base", "rope_theta"},
    {"expert_count", "num_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"attention.sliding_window", "sliding_window"},
    // read by themselves
    {"vocab_size", nullptr},
    {"attention.value_length", nullptr},
    {"rope.dimension_count", nullptr},
    {"rope.scaling.type", nullptr},
    {"rope.scaling.factor", nullptr},
    {"rope.scaling.original_context_length", nullptr},
    {"rope.scaling.attn_factor", nullptr},
    {"rope.scaling.yarn_log_multiplier", nullptr},
    {"rope.scaling.yarn_beta_fast", nullptr},
    {"rope.scaling.yarn_beta_slow", nullptr},
    // without effect
    {"rope.scaling.finetuned", nullptr},
    {"tensor_data_layout", nullptr},
};

constexpr GgufKey kLocalExperts[] = {{"expert_count", "num_local_experts"}};
constexpr GgufKey kGemmaKeys[] = {{"attn_logit_softcapping", "attn_logit_softcapping"},
                                  {"final_logit_softcapping", "final_logit_softcapping"},
                                  {"rope.freq_base_swa", "rope_local_base_freq"}};
constexpr GgufKey kQwen2MoeKeys[] = {{"expert_shared_feed_forward_length", "shared_expert_intermediate_size"}};
constexpr GgufKey kGraniteKeys[] = {
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"attention.scale", "attention_multiplier"},
    {"logit_scale", "logits_scaling"},
    {"expert_count", "num_local_experts"},
    {"expert_feed_forward_length", nullptr},  // feed_forward_length says it, too
    {"expert_shared_feed_forward_length", "shared_intermediate_size"},
    {"rope.scaling.finetuned", nullptr, 1},  // without it, llama.cpp computes no RoPE in these
};
constexpr GgufKey kGptOssKeys[] = {{"expert_count", "num_local_experts"},
                                   {"feed_forward_length", nullptr},
                                   {"expert_feed_forward_length", "intermediate_size"}};
constexpr int kSigmoid = 2;  // of llama.cpp's functions that score experts
constexpr GgufKey kDeepseekLikeKeys[] = {
    {"expert_count", "n_routed_experts"},
    {"expert_shared_count", "n_shared_experts"},
    {"leading_dense_block_count", "first_k_dense_replace"},
    {"expert_weights_scale", "routed_scaling_factor"},
    {"expert_weights_norm", "norm_topk_prob"},
    {"expert_group_count", "n_group"},
    {"expert_group_used_count", "topk_group"},
    {"expert_gating_func", nullptr, kSigmoid},
    {"nextn_predict_layers", nullptr},  // read by itself
};
constexpr GgufKey kErnieKeys[] = {
    {"expert_count", "moe_num_experts"},
    {"expert_used_count", "moe_k"},
    {"expert_shared_count", "moe_num_shared_experts"},
    {"leading_dense_block_count", "moe_layer_start_index"},
    {"interleave_moe_layer_step", "moe_layer_interval"},
    {"expert_shared_feed_forward_length", nullptr},  // as wide as so many experts
};
constexpr GgufKey kHunyuanKeys[] = {{"expert_used_count", "moe_topk"},
                                    {"expert_shared_count", "num_shared_expert"},
                                    {"expert_shared_feed_forward_length", nullptr}};
constexpr GgufKey kMinimaxKeys[] = {{"expert_count", "num_local_experts"},
                                    {"expert_gating_func", nullptr, kSigmoid},
                                    {"feed_forward_length", nullptr},
                                    {"expert_feed_forward_length", "intermediate_size"}};

// Of Gemma's norms, whose weights count from 1, files have the sum.
constexpr std::string_view kGemmaConfig = R"({"norm_offset": 0, "hidden_activation": "gelu_pytorch_tanh"})";
// What llama.cpp takes where the keys are missing.
constexpr std::string_view kDeepseekLikeConfig = R"({"norm_topk_prob": false, "first_k_dense_replace": 0})";

// Keys, reordered rows and what is implied are those of llama.cpp: its converter, src/models/ and
// llama_model_rope_type().
constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama", .model_type = "llama", .reordered = true, .with_experts = "mixtral"},
    {.name = "mixtral", .model_type = "mixtral", .reordered = true, .keys = kLocalExperts},
    {.name = "qwen2", .model_type = "qwen2"},
    {.name = "qwen3", .model_type = "qwen3"},
    {.name = "qwen2moe",
     .model_type = "qwen2_moe",
     .keys = kQwen2MoeKeys,
     .config = R"({"norm_topk_prob": false, "decoder_sparse_step": 1})"},
    {.name = "qwen3moe", .model_type = "qwen3_moe", .config = R"({"norm_topk_prob": true, "decoder_sparse_step": 1})"},
    {.name = "olmoe", .model_type = "olmoe", .config = R"({"norm_topk_prob": false})"},
    {.name = "phi3", .model_type = "phi3"},
    {.name = "gemma2", .model_type = "gemma2", .keys = kGemmaKeys, .config = kGemmaConfig, .layers_of_largest = 46},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .keys = kGemmaKeys,
     .config = kGemmaConfig,
     .layers_of_largest = 62},
    {.name = "granite", .model_type = "granite", .reordered = true, .keys = kGraniteKeys},
    {.name = "granitemoe", .model_type = "granitemoeshared", .reordered = true, .keys = kGraniteKeys},
    {.name = "olmo2", .model_type = "olmo2"},
    {.name = "smollm3", .model_type = "smollm3", .reordered = true},
    {.name = "gpt-oss", .model_type = "gpt_oss", .keys = kGptOssKeys, .yarn = R"({"truncate": false})"},
    {.name = "glm4moe",
     .model_type = "glm4_moe",
     .keys = kDeepseekLikeKeys,
     .config = kDeepseekLikeConfig,
     .qk_norm_flag = "use_qk_norm"},
    {.name = "dots1", .model_type = "dots1", .keys = kDeepseekLikeKeys, .config = kDeepseekLikeConfig},
    {.name = "ernie4_5-moe",
     .model_type = "ernie4_5_moe",
     .keys = kErnieKeys,
     .config = R"({"moe_num_shared_experts": 0})"},
    {.name = "hunyuan-moe", .model_type = "hunyuan_v1_moe", .keys = kHunyuanKeys},
    {.name = "minimax-m2", .model_type = "minimax_m2", .keys = kMinimaxKeys},
};

}  // namespace

const GgufArchitecture* find_gguf_architecture(std::string_view name) {
  for (const GgufArchitecture& architecture : kArchitectures)
    if (architecture.name == name) return &architecture;
  return nullptr;
}

std::string gguf_architecture_names() {
  std::string names;
  for (const GgufArchitecture& architecture : kArchitectures)
    names.append(names.empty() ? "" : ", ").append(architecture.name);
  return names;
}

std::span<const GgufKey> common_gguf_keys() {
  return kCommonKeys;
}

}  // namespace foe
