#include "shapes.h"

#include "weights/config_json.h"

namespace foe {
namespace {

Shape paper_shape(int width, int heads, int head_dim, int expert_width) {
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
  return {.config = c, .groups = 8, .layers = c.num_hidden_layers, .paper = true};
}

}  // namespace

Shape load_shape(const std::string& name) {
  if (name == "paper-1b") return paper_shape(768, 8, 96, 384);
  if (name == "paper-7b") return paper_shape(2048, 16, 128, 1024);
  const ModelConfig config = load_model_config(name);
  return {.config = config,
          .groups = config.expert_groups > 1 ? config.expert_groups : config.num_key_value_heads,
          .layers = config.num_hidden_layers,
          .paper = false};
}

}  // namespace foe
