#include "bench/shapes.h"

#include "weights/config_json.h"

namespace foe {
namespace {

ModelConfig paper_config(int width, int heads, int head_dim, int expert_width) {
  ModelConfig c;
  c.model_type = "foe";
  c.hidden_size = width;
  c.vocab_size = 50304;
  c.max_position_embeddings = 32768;
  c.layers = uniform_layers(
      16, {.query_heads = heads, .kv_heads = 8, .key_width = head_dim, .rope_theta = 500000, .rope_factor = 16},
      {.count = 64, .per_token = 8, .width = expert_width, .router = RouterConfig{}});
  return c;
}

// OLMoE-1B-7B. The paper's larger model differs from it in its KV heads and RoPE.
ModelConfig olmoe_config() {
  ModelConfig c = paper_config(2048, 16, 128, 1024);
  for_each_attention(c, [](AttentionConfig& attention) {
    attention.kv_heads = 16;
    attention.qk_norm = QkNorm::kFull;
    attention.rope_theta = 10000;
    attention.rope_factor = 1;
  });
  c.rms_norm_eps = 1e-5;
  c.max_position_embeddings = 4096;
  return c;
}

// Like Qwen3-MoE, but small: 1.34 billion parameters, of which 248 million are used for each token.
ModelConfig qwen3_moe_config() {
  ModelConfig c;
  c.model_type = "foe";
  c.hidden_size = 1024;
  c.vocab_size = 32000;
  c.max_position_embeddings = 32768;
  c.layers = uniform_layers(
      24, {.query_heads = 16, .kv_heads = 4, .key_width = 64, .qk_norm = QkNorm::kHead, .rope_theta = 1e6},
      {.count = 32, .per_token = 4, .width = 512, .router = RouterConfig{.norm = RouterNorm::kSelected}});
  return c;
}

Shape built_in(const ModelConfig& config, int groups) {
  return {.config = config, .groups = groups, .layers = config.num_layers(), .built_in = true};
}

}  // namespace

Shape load_shape(const std::string& name) {
  if (name == "paper-1b") return built_in(paper_config(768, 8, 96, 384), 8);
  if (name == "paper-7b") return built_in(paper_config(2048, 16, 128, 1024), 8);
  if (name == "olmoe") return built_in(olmoe_config(), 8);
  if (name == "qwen3-moe-24l") return built_in(qwen3_moe_config(), 4);
  const ModelConfig config = load_model_config(name);
  return {.config = config,
          .groups = config.expert_groups > 1 ? config.expert_groups : config.heads().kv_heads,
          .layers = config.num_layers(),
          .built_in = false};
}

ModelConfig in_groups(ModelConfig shape, int groups, bool federated) {
  shape.expert_groups = groups;
  shape.residual = federated ? Residual::kFederated : Residual::kShared;
  shape.group_sync = federated ? GroupSync::kSum : GroupSync::kMean;
  if (federated) return shape;
  shape.group_sync_every = 1;
  for (LayerConfig& layer : shape.layers) layer.blocks.front().parallel = false;  // attention's
  for (int l = 0; l < shape.num_layers(); ++l)
    if (std::optional<RouterConfig>& router = shape.experts(l).router) router->across_groups = false;
  return shape;
}

}  // namespace foe
