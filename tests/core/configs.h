// The models that tests are about; a test changes the sizes that it needs otherwise.
#pragma once

#include "core/model_config.h"

namespace foe {

// Small enough to run in milliseconds, with several experts, KV heads and layers for ranks to share.
inline ModelConfig small_config() {
  ModelConfig c;
  c.hidden_size = 48;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 4;
  c.head_dim = 12;
  c.vocab_size = 70;
  c.num_experts = 16;
  c.num_experts_per_tok = 4;
  c.moe_intermediate_size = 24;
  c.max_position_embeddings = 512;
  c.model_type = "foe";
  return c;
}

inline ModelConfig small_federated(int groups) {
  ModelConfig c = small_config();
  c.expert_groups = groups;
  c.residual = Residual::kFederated;
  c.group_sync = GroupSync::kSum;
  return c;
}

// So small that its parameters, tensors and bytes can be counted by hand.
inline ModelConfig countable_config() {
  ModelConfig c;
  c.hidden_size = 4;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 6;
  c.vocab_size = 10;
  c.num_experts = 4;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 5;
  c.max_position_embeddings = 64;
  return c;
}

// The federated model of one billion parameters of arXiv 2605.06206, section 4: for what depends on real sizes, and
// allocates nothing.
inline ModelConfig paper_config() {
  ModelConfig c;
  c.hidden_size = 768;
  c.num_hidden_layers = 16;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 8;
  c.head_dim = 96;
  c.vocab_size = 50304;
  c.num_experts = 64;
  c.num_experts_per_tok = 8;
  c.moe_intermediate_size = 384;
  c.rope_theta = 500000;
  c.rope_scaling_factor = 16;
  c.max_position_embeddings = 32768;
  c.qk_norm = QkNorm::kFull;
  c.expert_groups = 8;
  c.residual = Residual::kFederated;
  return c;
}

}  // namespace foe
