// gpt-oss.
#include <array>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "weights/families/family.h"
#include "weights/families/family_parts.h"

namespace foe {
namespace {

// Experts may be stored in MXFP4 (stored_tensors.h). Which tensors are, their names say: what is listed here as not
// converted is not needed.
void check_quantisation(const ConfigKeys& keys) {
  const nlohmann::json* config = keys.value("quantization_config");
  if (!config) return;
  if (!config->is_object() || !config->contains("quant_method") || config->at("quant_method") != "mxfp4")
    fail("quantization_config: expected null or an object with quant_method = \"mxfp4\", got {}", excerpt(*config));
}

void read_gpt_oss(const ConfigKeys& keys, ModelConfig& config) {
  check_quantisation(keys);
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.sinks = true;
  keys.expect("hidden_act", "silu");
  const int count = keys.integer(keys.has("num_local_experts") ? "num_local_experts" : "num_experts");
  const int per_token = keys.integer("num_experts_per_tok");
  const ExpertsConfig experts{
      .count = count,
      .per_token = per_token,
      .width = keys.integer("intermediate_size"),
      .gate = {.alpha = keys.number("swiglu_alpha"), .limit = keys.number("swiglu_limit"), .up_offset = 1},
      .bias = true,
      .router = RouterConfig{.score = RouterScore::kSelectedSoftmax, .bias = true}};
  // Other names for what is said already; the context before YaRN is rope_scaling's.
  keys.expect("num_experts", count);
  keys.expect("experts_per_token", per_token);
  keys.mark({"initial_context_length"});
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  const auto every_second = [](int layer) { return layer % 2 == 0; };
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), every_second), config);
}

constexpr std::array kGptOssFamilies = {
    Family{"gpt_oss", read_gpt_oss,
           R"({"rms_norm_eps": 1e-5, "rope_theta": 150000.0, "head_dim": 64, "num_key_value_heads": 8,
               "sliding_window": 128, "attention_bias": true, "hidden_act": "silu", "num_experts_per_tok": 4,
               "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "max_position_embeddings": 131072,
               "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                   "truncate": false, "original_max_position_embeddings": 4096}})"},
};

}  // namespace

std::span<const Family> gpt_oss_families() {
  return kGptOssFamilies;
}

}  // namespace foe
