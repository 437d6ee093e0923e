#include "bench/shapes.h"

#include "weights/config_json.h"

namespace foe {
namespace {

ModelConfig paper_config(int width, int heads, int head_dim, int expert_width) {
  ModelConfig c;
  c.model_type = "foe";
  c.hidden_size = width;
  c.num_hidden_layers = 16;
  c.num_attention_heads = heads;
  c.num_key_value_heads = 8;
  c.head_dim = head_dim;
  c.num_experts = 64;
  c.num_experts_per_tok = 8;
  c.moe_intermediate_size = expert_width;
  c.vocab_size = 50304;
  c.max_position_embeddings = 32768;
  c.rope_theta = 500000;
  c.rope_scaling_factor = 16;
  return c;
}

// OLMoE-1B-7B. The paper's larger model differs from it in its KV heads and RoPE.
ModelConfig olmoe_config() {
  ModelConfig c = paper_config(2048, 16, 128, 1024);
  c.num_key_value_heads = 16;
  c.qk_norm = QkNorm::kFull;
  c.rms_norm_eps = 1e-5;
  c.max_position_embeddings = 4096;
  c.rope_theta = 10000;
  c.rope_scaling_factor = 1;
  return c;
}

// Like Qwen3-MoE, but small: 1.34 billion parameters, of which 248 million are used for each token.
ModelConfig qwen3_moe_config() {
  ModelConfig c;
  c.model_type = "foe";
  c.hidden_size = 1024;
  c.num_hidden_layers = 24;
  c.num_attention_heads = 16;
  c.num_key_value_heads = 4;
  c.head_dim = 64;
  c.num_experts = 32;
  c.num_experts_per_tok = 4;
  c.moe_intermediate_size = 512;
  c.norm_topk_prob = true;
  c.qk_norm = QkNorm::kHead;
  c.vocab_size = 32000;
  c.max_position_embeddings = 32768;
  c.rope_theta = 1e6;
  return c;
}

Shape built_in(const ModelConfig& config, int groups) {
  return {.config = config, .groups = groups, .layers = config.num_hidden_layers, .built_in = true};
}

}  // namespace

Shape load_shape(const std::string& name) {
  if (name == "paper-1b") return built_in(paper_config(768, 8, 96, 384), 8);
  if (name == "paper-7b") return built_in(paper_config(2048, 16, 128, 1024), 8);
  if (name == "olmoe") return built_in(olmoe_config(), 8);
  if (name == "qwen3-moe-24l") return built_in(qwen3_moe_config(), 4);
  const ModelConfig config = load_model_config(name);
  return {.config = config,
          .groups = config.expert_groups > 1 ? config.expert_groups : config.num_key_value_heads,
          .layers = config.num_hidden_layers,
          .built_in = false};
}

}  // namespace foe
