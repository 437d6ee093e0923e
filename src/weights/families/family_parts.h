// What families of models read from a config.json in the same way.
#pragma once

#include <functional>
#include <vector>

#include "core/model_config.h"
#include "weights/families/config_keys.h"

namespace foe {

// Reads what all families call the same: sizes, the norm's epsilon, ties, special tokens.
void read_model_keys(const ConfigKeys& keys, ModelConfig& config);
// Reads "eos_token_id", a number or a list of numbers, and "bos_token_id", as far as they are there.
void read_tokens(const nlohmann::json& root, ModelConfig& config);

// Reads the heads and their width ("head_dim", otherwise hidden_size / num_attention_heads), and RoPE.
AttentionConfig read_attention(const ConfigKeys& keys, const ModelConfig& config);
// Reads "rope_theta" and "rope_scaling" or "rope_parameters".
void read_rope(const ConfigKeys& keys, AttentionConfig& attention);
// "intermediate_size" and the activation.
ExpertsConfig read_dense_network(const ConfigKeys& keys);
Activation read_activation(const ConfigKeys& keys, const char* key = "hidden_act");

// Reads "sliding_window" as the window of all layers; 0 if there is none, or if it is at least as long as the context.
// "layer_types" may be there if they say the same.
int read_window_of_all(const ConfigKeys& keys, bool in_use = true);
// Reads "sliding_window" as that of those layers that "layer_types" calls "sliding_attention", or if there are no
// types, of which `windowed` is true. Returns one for each layer.
std::vector<int> read_window_by_layer(const ConfigKeys& keys, int layers, const std::function<bool(int)>& windowed,
                                      bool in_use = true);

}  // namespace foe
