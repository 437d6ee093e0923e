// Families whose layers have one feed-forward network each.
#include <array>

#include "weights/families/family.h"
#include "weights/families/family_parts.h"

namespace foe {
namespace {

void read_llama(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_dense_network(keys));
}

void read_mistral(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.window = read_window_of_all(keys);
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_dense_network(keys));
}

// Qwen's window is that of the layers from max_window_layers on, and off unless use_sliding_window.
void set_qwen_windows(const ConfigKeys& keys, ModelConfig& config) {
  const int first = keys.integer("max_window_layers");
  const std::vector<int> windows = read_window_by_layer(
      keys, config.num_layers(), [first](int l) { return l >= first; }, keys.flag("use_sliding_window"));
  for (int l = 0; l < config.num_layers(); ++l) config.attention(l).window = windows[l];
}

void read_qwen3(const ConfigKeys& keys, ModelConfig& config) {
  read_llama(keys, config);
  for_each_attention(config, [](AttentionConfig& attention) { attention.qk_norm = QkNorm::kHead; });
  set_qwen_windows(keys, config);
}

constexpr std::array kDenseFamilies = {
    Family{"llama", read_llama, R"({"rms_norm_eps": 1e-6})"},
    Family{"mistral", read_mistral, R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "num_key_value_heads": 8})"},
    Family{"qwen3", read_qwen3,
           R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128,
               "num_key_value_heads": 32})"},
};

}  // namespace

std::span<const Family> dense_families() {
  return kDenseFamilies;
}

}  // namespace foe
