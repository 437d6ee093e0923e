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

// Reads the heads and their width ("head_dim", otherwise hidden_size / num_attention_heads).
AttentionConfig read_heads(const ConfigKeys& keys, const ModelConfig& config);

// What families do with "partial_rotary_factor".
enum class RotaryShare {
  kWhole,  // they do not know it: a whole head rotates
  kAny,
};
// Reads "rope_theta", "partial_rotary_factor", and how RoPE is scaled: "rope_scaling" of transformers 4, which wins, or
// "rope_parameters" of transformers 5.
void read_rope(const ConfigKeys& keys, AttentionConfig& attention, RotaryShare share = RotaryShare::kWhole);
// The same in families whose "rope_parameters" has an object for each type of layers, "full_attention" and
// "sliding_attention"; "rope_scaling" is that of the former. `theta` is for an object that has none.
void read_rope_of_type(const ConfigKeys& keys, const char* type, double theta, AttentionConfig& attention);
// Reads heads and RoPE.
AttentionConfig read_attention(const ConfigKeys& keys, const ModelConfig& config,
                               RotaryShare share = RotaryShare::kWhole);

// "intermediate_size" and the activation.
ExpertsConfig read_dense_network(const ConfigKeys& keys);
Activation read_activation(const ConfigKeys& keys, const char* key = "hidden_act");
// So many experts, whose weights are a softmax over all; what keys are called that say the rest.
ExpertsConfig read_softmax_experts(const ConfigKeys& keys, int count, const char* per_token, const char* width,
                                   bool renormalises);
// Where the norms of all blocks are.
void set_norms(BlockNorm norm, ModelConfig& config);
// Makes layers dense that "decoder_sparse_step" does not divide, counted from 1, or that "mlp_only_layers" names
// (Qwen).
void set_dense_between(const ConfigKeys& keys, ModelConfig& config);
// Reads Granite's multipliers of embeddings, logits, attention scores and of what blocks add.
void read_granite_factors(const ConfigKeys& keys, ModelConfig& config);

// Reads "sliding_window" as the window of all layers; 0 if there is none, or if it is at least as long as the context.
// "layer_types" may be there if they say the same.
int read_window_of_all(const ConfigKeys& keys, bool in_use = true);
// Returns "sliding_window"; 0 if there is none, if it is not in use, or if it is at least as long as the context.
int read_window(const ConfigKeys& keys, bool in_use = true);
// Returns for each layer whether "layer_types" calls it "sliding_attention", or without that key what `windowed` says.
std::vector<bool> read_windowed_layers(const ConfigKeys& keys, int layers, const std::function<bool(int)>& windowed);
// Gives those layers "sliding_window", if it is in use.
void set_windows(const ConfigKeys& keys, const std::vector<bool>& windowed, ModelConfig& config, bool in_use = true);

}  // namespace foe
