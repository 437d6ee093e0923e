// The models that tests are about; a test changes the sizes that it needs otherwise.
#pragma once

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

// Small enough to run in milliseconds, with several experts, KV heads and layers for ranks to share.
inline ModelConfig small_config() {
  ModelConfig c;
  c.hidden_size = 48;
  c.vocab_size = 70;
  c.max_position_embeddings = 512;
  c.layers = uniform_layers(3, {.query_heads = 8, .kv_heads = 4, .key_width = 12},
                            {.count = 16, .per_token = 4, .width = 24, .router = RouterConfig{}});
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
  c.vocab_size = 10;
  c.max_position_embeddings = 64;
  c.layers = uniform_layers(2, {.query_heads = 4, .kv_heads = 2, .key_width = 6},
                            {.count = 4, .per_token = 2, .width = 5, .router = RouterConfig{}});
  return c;
}

// The federated model of one billion parameters of arXiv 2605.06206, section 4: for what depends on real sizes, and
// allocates nothing.
inline ModelConfig paper_config() {
  ModelConfig c;
  c.hidden_size = 768;
  c.vocab_size = 50304;
  c.max_position_embeddings = 32768;
  c.layers = uniform_layers(16,
                            {.query_heads = 8,
                             .kv_heads = 8,
                             .key_width = 96,
                             .qk_norm = QkNorm::kFull,
                             .rope_theta = 500000,
                             .rope_factor = 16},
                            {.count = 64, .per_token = 8, .width = 384, .router = RouterConfig{}});
  c.expert_groups = 8;
  c.residual = Residual::kFederated;
  return c;
}

// The share of a rank that has all of a model.
inline Share whole_share(const ModelConfig& c) {
  Share share{.groups = {0, c.federated() ? c.expert_groups : 1},
              .kv_heads = {0, c.heads().kv_heads},
              .vocab = {0, c.vocab_size},
              .layers = {}};
  for (int l = 0; l < c.num_layers(); ++l)
    share.layers.push_back({{0, expert_table(c, l).with_rows()}, {0, c.experts(l).width}});
  return share;
}

// Changes the share of all layers alike.
inline void set(Share& share, Range ExpertsShare::*field, Range value) {
  for (ExpertsShare& layer : share.layers) layer.*field = value;
}

}  // namespace foe
