// Families whose layers have one feed-forward network each.
#include <array>
#include <cmath>

#include "base/error.h"
#include "weights/families/family.h"
#include "weights/families/family_parts.h"
#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

// Attention and a dense network in every layer, alike in all.
void set_layers_alike(const ConfigKeys& keys, const AttentionConfig& attention, ModelConfig& config) {
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_dense_network(keys));
}

void read_llama(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  set_layers_alike(keys, attention, config);
  const bool bias = keys.flag("mlp_bias");
  for_each_experts(config, [bias](ExpertsConfig& experts) { experts.bias = bias; });
}

void read_mistral(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.window = read_window_of_all(keys);
  set_layers_alike(keys, attention, config);
}

void read_ministral(const ConfigKeys& keys, ModelConfig& config) {
  set_layers_alike(keys, read_attention(keys, config), config);
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), [](int) { return true; }), config);
}

// Qwen's window is that of the layers from max_window_layers on, and off unless use_sliding_window.
void set_qwen_windows(const ConfigKeys& keys, ModelConfig& config) {
  const int first = keys.integer("max_window_layers");
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), [first](int l) { return l >= first; }), config,
              keys.flag("use_sliding_window"));
}

void read_qwen2(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = true;
  set_layers_alike(keys, attention, config);
  set_qwen_windows(keys, config);
}

void read_qwen3(const ConfigKeys& keys, ModelConfig& config) {
  read_llama(keys, config);
  for_each_attention(config, [](AttentionConfig& attention) { attention.qk_norm = QkNorm::kHead; });
  set_qwen_windows(keys, config);
}

void read_phi3(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config, RotaryShare::kAny);
  attention.window = read_window_of_all(keys);
  set_layers_alike(keys, attention, config);
}

void read_olmo2(const ConfigKeys& keys, ModelConfig& config) {
  read_llama(keys, config);
  for_each_attention(config, [](AttentionConfig& attention) { attention.qk_norm = QkNorm::kFull; });
  set_norms(BlockNorm::kAfter, config);
}

// RoPE of windowed layers may be another than that of the others. Each has a base of its own, unless the object says
// it.
void set_rope_by_type(const ConfigKeys& keys, const std::vector<bool>& windowed, double windowed_theta,
                      double full_theta, ModelConfig& config) {
  for (int l = 0; l < config.num_layers(); ++l)
    read_rope_of_type(keys, windowed[l] ? "sliding_attention" : "full_attention",
                      windowed[l] ? windowed_theta : full_theta, config.attention(l));
}

void read_olmo3(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_heads(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kFull;
  set_layers_alike(keys, attention, config);
  set_norms(BlockNorm::kAfter, config);
  const std::vector<bool> windowed =
      read_windowed_layers(keys, config.num_layers(), [](int l) { return (l + 1) % 4 != 0; });
  set_windows(keys, windowed, config);
  // "rope_theta" is that of layers without a window alone, as in transformers.
  constexpr double kTheta = 500000;
  set_rope_by_type(keys, windowed, kTheta, keys.number("rope_theta", kTheta), config);
}

void read_granite(const ConfigKeys& keys, ModelConfig& config) {
  read_llama(keys, config);
  read_granite_factors(keys, config);
}

// Whether each layer has RoPE: "no_rope_layers" has a 1 for each that has it, and without it every n-th has none.
std::vector<bool> read_rope_layers(const ConfigKeys& keys, int layers) {
  const int interval = keys.integer("no_rope_layer_interval");
  const json* list = keys.value("no_rope_layers");
  if (list && (!list->is_array() || static_cast<int>(list->size()) != layers))
    fail("no_rope_layers: expected a list of {} numbers, one for each layer, got {}", layers, excerpt(*list));
  if (!list && interval < 1) fail("no_rope_layer_interval: expected at least 1, got {}", interval);
  std::vector<bool> rope;
  for (int l = 0; l < layers; ++l)
    rope.push_back(list ? keys::as_int((*list)[l], "no_rope_layers") != 0 : (l + 1) % interval != 0);
  return rope;
}

void read_smollm3(const ConfigKeys& keys, ModelConfig& config) {
  read_llama(keys, config);
  const std::vector<bool> rope = read_rope_layers(keys, config.num_layers());
  // As in transformers, "layer_types" wins over "use_sliding_window".
  const bool windows = keys.flag("use_sliding_window") || keys.has("layer_types");
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), [&](int l) { return !rope[l]; }), config, windows);
  for (int l = 0; l < config.num_layers(); ++l)
    if (!rope[l]) config.attention(l).rotary_share = 0;
}

// What Gemma 2 and 3 share. Their norms multiply by 1 + weight, embeddings by sqrt(D), which is not rounded to the type
// of the weights: what reads the same weights in f32 or f64 does not round it either.
void read_gemma(const ConfigKeys& keys, AttentionConfig attention, ModelConfig& config) {
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  const double scalar = keys.number("query_pre_attn_scalar");
  if (!(scalar > 0)) fail("query_pre_attn_scalar: expected a number above 0, got {}", scalar);
  attention.scale = 1 / std::sqrt(scalar);
  if (const json* cap = keys.find("final_logit_softcapping"))
    config.logit_softcap = keys::as_double(*cap, "final_logit_softcapping");
  config.layers =
      uniform_layers(keys.integer("num_hidden_layers"), attention,
                     dense_experts(keys.integer("intermediate_size"), read_activation(keys, "hidden_activation")));
  set_norms(BlockNorm::kBoth, config);
  config.norm_offset = 1;
  config.embedding_factor = std::sqrt(config.hidden_size);
  keys.mark({"hidden_act", "sliding_window_size"});  // of early files, beside what counts
}

void read_gemma2(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  if (const json* cap = keys.find("attn_logit_softcapping"))
    attention.softcap = keys::as_double(*cap, "attn_logit_softcapping");
  read_gemma(keys, attention, config);
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), [](int l) { return l % 2 == 0; }), config);
}

void read_gemma3(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_heads(keys, config);
  attention.qk_norm = QkNorm::kHead;
  keys.mark({"attn_logit_softcapping"});  // which transformers does not apply here
  read_gemma(keys, attention, config);
  const int pattern = keys.integer("sliding_window_pattern");
  if (pattern < 1) fail("sliding_window_pattern: expected at least 1, got {}", pattern);
  const std::vector<bool> windowed =
      read_windowed_layers(keys, config.num_layers(), [pattern](int l) { return (l + 1) % pattern != 0; });
  set_windows(keys, windowed, config);
  set_rope_by_type(keys, windowed, keys.number("rope_local_base_freq"), keys.number("rope_theta"), config);
}

constexpr std::array kDenseFamilies = {
    Family{"llama", read_llama, R"({"rms_norm_eps": 1e-6})"},
    Family{"mistral", read_mistral, R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "num_key_value_heads": 8})"},
    Family{"ministral", read_ministral, R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "num_key_value_heads": 8})"},
    Family{"qwen2", read_qwen2,
           R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32})"},
    Family{"qwen3", read_qwen3,
           R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128,
               "num_key_value_heads": 32})"},
    Family{"phi3", read_phi3, R"({"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096})"},
    Family{"olmo2", read_olmo2, R"({"rms_norm_eps": 1e-5})"},
    Family{"olmo3", read_olmo3, R"({"rms_norm_eps": 1e-5, "sliding_window": 4096})"},
    Family{"granite", read_granite, R"({"rms_norm_eps": 1e-6})"},
    Family{"smollm3", read_smollm3,
           R"({"rms_norm_eps": 1e-6, "rope_theta": 2000000.0, "no_rope_layer_interval": 4, "tie_word_embeddings": true,
               "num_key_value_heads": 4})"},
    Family{"gemma2", read_gemma2,
           R"({"rms_norm_eps": 1e-6, "head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": true,
               "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096,
               "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0})"},
    Family{"gemma3_text", read_gemma3,
           R"({"rms_norm_eps": 1e-6, "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
               "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
               "max_position_embeddings": 131072, "tie_word_embeddings": true,
               "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096,
               "sliding_window_pattern": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0})"},
};

}  // namespace

std::span<const Family> dense_families() {
  return kDenseFamilies;
}

}  // namespace foe
