// Families whose layers have more of a router or of experts than a softmax over networks of their own: selection
// biases, limits to groups, shared experts, dense layers among sparse ones, norms elsewhere.
#include <algorithm>
#include <array>
#include <cmath>

#include "weights/families/family.h"
#include "weights/families/family_parts.h"
#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

// --- parts

int read_experts_at_least_1(const ConfigKeys& keys, const char* key) {
  const int count = keys.integer(key);
  if (count < 1) fail("{}: expected at least 1, got {}", key, count);
  return count;
}

// The same with the names of all keys.
ExpertsConfig read_softmax_experts(const ConfigKeys& keys, const char* count, const char* per_token, const char* width,
                                   bool renormalises) {
  return read_softmax_experts(keys, read_experts_at_least_1(keys, count), per_token, width, renormalises);
}

// Shared experts are one network of so many hidden units: slices as wide as the routed ones if it is a small multiple
// of that, so that ranks can share them, and otherwise one expert.
void set_shared_experts(const char* key, int units, ExpertsConfig& experts) {
  constexpr int kMostSlices = 8;
  if (units < 0) fail("{}: expected at least 0, got {}", key, units);
  if (units == 0) return;
  const bool multiple = experts.width > 0 && units % experts.width == 0 && units / experts.width <= kMostSlices;
  experts.shared = multiple ? units / experts.width : 1;
  experts.shared_width = multiple ? 0 : units;
}

// The same for so many experts of the routed ones' width.
void read_shared_experts(const ConfigKeys& keys, const char* key, ExpertsConfig& experts) {
  experts.shared = keys.integer(key, 0);
}

// What these families have in common with DeepSeek-V3: weights are sigmoids, a bias helps to choose, groups may limit.
// The 1e-20 that is added to the sum of weights shows in no sum of f32 above 1e-13, which no choice has.
ExpertsConfig read_sigmoid_experts(const ConfigKeys& keys) {
  const json* score = keys.value("scoring_func");  // which dots.llm1 calls as the others call topk_method
  if (score && *score != "sigmoid" && *score != "noaux_tc")
    fail("scoring_func: expected \"sigmoid\", got {}", excerpt(*score));
  keys.expect("topk_method", "noaux_tc");
  ExpertsConfig experts = read_softmax_experts(keys, "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size",
                                               keys.flag("norm_topk_prob"));
  RouterConfig& router = *experts.router;
  router.score = RouterScore::kSigmoid;
  router.selection_bias = true;
  router.groups = keys.integer("n_group", 1);
  router.top_groups = keys.integer("topk_group", 1);
  router.group_score = GroupScore::kTopTwo;
  router.scale = keys.number("routed_scaling_factor");
  read_shared_experts(keys, "n_shared_experts", experts);
  return experts;
}

// The first layers are dense.
void set_first_dense(const ConfigKeys& keys, ModelConfig& config) {
  const int dense = keys.integer("first_k_dense_replace", 0);
  keys.mark({"intermediate_size"});  // of dense layers, of which there may be none
  for (int l = 0; l < std::min(dense, config.num_layers()); ++l) config.experts(l) = read_dense_network(keys);
}

// Layers behind the last one predict tokens further ahead, which nothing here uses.
void set_unused_layers(const ConfigKeys& keys, const char* key, ModelConfig& config) {
  constexpr int kMostLayers = 64;
  const int count = keys.integer(key, 0);
  if (count < 0 || count > kMostLayers) fail("{}: expected an integer from 0 to {}, got {}", key, kMostLayers, count);
  for (int l = 0; l < count; ++l)
    config.unused_tensors.push_back(fmt::format("model.layers.{}.", config.num_layers() + l));
}

// A value for all layers, or a list with one for each.
int integer_of_layer(const ConfigKeys& keys, const char* key, int layer, int otherwise) {
  const json* value = keys.value(key);
  if (!value) return otherwise;
  if (!value->is_array()) return keys::as_int(*value, key);
  if (layer >= static_cast<int>(value->size()))
    fail("{}: expected an integer, or a list with one for each layer, got {}", key, excerpt(*value));
  return keys::as_int((*value)[layer], key);
}

// --- families

void read_qwen2_moe(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = keys.flag("qkv_bias");
  ExpertsConfig experts = read_softmax_experts(keys, "num_experts", "num_experts_per_tok", "moe_intermediate_size",
                                               keys.flag("norm_topk_prob"));
  set_shared_experts("shared_expert_intermediate_size", keys.integer("shared_expert_intermediate_size"), experts);
  experts.shared_gate = experts.shared > 0;
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  set_dense_between(keys, config);
  // Every second layer of the first ones has a window.
  const int end = keys.integer("max_window_layers");
  const auto windowed = [end](int l) { return l % 2 == 0 && l < end; };
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), windowed), config, keys.flag("use_sliding_window"));
}

void read_glm4_moe(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config, RotaryShare::kAny);
  attention.qkv_bias = keys.flag("attention_bias");
  if (keys.flag("use_qk_norm")) attention.qk_norm = QkNorm::kHead;
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_sigmoid_experts(keys));
  set_first_dense(keys, config);
  set_unused_layers(keys, "num_nextn_predict_layers", config);
}

void read_solar_open(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config, RotaryShare::kAny);
  attention.qkv_bias = keys.flag("attention_bias");
  keys.mark({"intermediate_size"});  // no layer is dense
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_sigmoid_experts(keys));
}

void read_dots1(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kHead;
  keys.expect("moe_layer_freq", 1);
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, read_sigmoid_experts(keys));
  set_first_dense(keys, config);
  const int first = keys.integer("max_window_layers");
  set_windows(keys, read_windowed_layers(keys, config.num_layers(), [first](int l) { return l >= first; }), config);
}

void read_minimax_m2(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config, RotaryShare::kAny);
  const int rotary = keys.integer("rotary_dim", attention.key_width);
  if (rotary < 0 || rotary > attention.key_width)
    fail("rotary_dim: expected an integer from 0 to head_dim = {}, got {}", attention.key_width, rotary);
  if (attention.rotary_share == 1)
    attention.rotary_share = static_cast<double>(rotary) / std::max(1, attention.key_width);
  keys.expect("use_qk_norm", true);
  keys.expect("qk_norm_type", "per_layer");
  attention.qk_norm = QkNorm::kFull;
  const json* kinds = keys.value("attn_type_list");
  if (kinds && (!kinds->is_array() || !std::ranges::all_of(*kinds, [](const json& kind) { return kind == 1; })))
    fail("attn_type_list: expected a list of 1 alone (attention with softmax), got {}", excerpt(*kinds));
  keys.expect("scoring_func", "sigmoid");
  keys.expect("use_routing_bias", true);
  keys.expect("norm_topk_prob", true);
  ExpertsConfig experts =
      read_softmax_experts(keys, "num_local_experts", "num_experts_per_tok", "intermediate_size", true);
  experts.router->score = RouterScore::kSigmoid;
  experts.router->selection_bias = true;
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  keys.mark({"use_mtp", "mtp_transformer_layers", "shared_moe_mode"});
  set_unused_layers(keys, "num_mtp_modules", config);
}

AttentionConfig read_ernie_attention(const ConfigKeys& keys, const ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.interleaved = true;
  return attention;
}

void read_ernie4_5(const ConfigKeys& keys, ModelConfig& config) {
  config.layers =
      uniform_layers(keys.integer("num_hidden_layers"), read_ernie_attention(keys, config), read_dense_network(keys));
}

void read_ernie4_5_moe(const ConfigKeys& keys, ModelConfig& config) {
  keys.expect("moe_use_aux_free", true);  // without it there is no selection bias
  ExpertsConfig experts = read_softmax_experts(keys, "moe_num_experts", "moe_k", "moe_intermediate_size", true);
  experts.router->selection_bias = true;
  experts.router->norm_min = keys.number("moe_norm_min");
  read_shared_experts(keys, "moe_num_shared_experts", experts);
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), read_ernie_attention(keys, config), experts);
  const int step = keys.integer("moe_layer_interval"), first = keys.integer("moe_layer_start_index");
  const int end = keys.integer("moe_layer_end_index"), last = end == -1 ? config.num_layers() - 1 : end;
  if (step < 1) fail("moe_layer_interval: expected at least 1, got {}", step);
  keys.mark({"intermediate_size"});  // of dense layers, of which there may be none
  for (int l = 0; l < config.num_layers(); ++l)
    if ((l + 1) % step != 0 || l < first || l > last) config.experts(l) = read_dense_network(keys);
  keys.mark({"num_nextn_predict_layers", "moe_gate", "moe_capacity"});
  config.unused_tensors = {"model.mtp_"};
}

// Hunyuan's "dynamic" RoPE with an alpha is a larger base, whatever the length.
AttentionConfig read_hunyuan_attention(const ConfigKeys& keys, const ModelConfig& config) {
  AttentionConfig attention = read_heads(keys, config);
  double alpha = 0;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* rope = keys.value(key);
    if (!rope || !rope->is_object()) continue;
    const json* type = keys::find(*rope, "rope_type");
    if (!type) type = keys::find(*rope, "type");
    const json* found = keys::find(*rope, "alpha");
    if (!found || !type || *type != "dynamic") break;
    alpha = keys::as_double(*found, "rope_scaling.alpha");
    if (!(alpha > 0)) fail("rope_scaling.alpha: expected a number above 0, got {}", alpha);
    const json* theta = keys::find(*rope, "rope_theta");
    attention.rope_theta = theta ? keys::as_double(*theta, "rope_theta") : keys.number("rope_theta", 10000.0);
    break;
  }
  if (alpha > 0) {
    keys.mark({"rope_scaling", "rope_parameters", "rope_theta"});
    const double width = attention.key_width;
    attention.rope_theta *= std::pow(alpha, width / (width - 2));
    attention.rope_f32 = true;
  } else {
    read_rope(keys, attention);
  }
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kHead;
  attention.norm_after_rope = true;
  keys.expect("use_qk_norm", true);
  keys.expect("use_cla", false);
  keys.expect("use_mla", false);
  keys.expect("norm_type", "rms");
  keys.expect("use_rotary_pos_emb", true);
  keys.expect("group_limited_greedy", false);
  // They say something only with these.
  keys.mark({"attention_head_dim", "cla_share_factor", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
             "qk_rope_head_dim", "v_head_dim", "n_group", "topk_group", "routed_scaling_factor"});
  return attention;
}

void read_hunyuan_v1_dense(const ConfigKeys& keys, ModelConfig& config) {
  config.layers =
      uniform_layers(keys.integer("num_hidden_layers"), read_hunyuan_attention(keys, config), read_dense_network(keys));
}

void read_hunyuan_v1_moe(const ConfigKeys& keys, ModelConfig& config) {
  keys.expect("use_mixed_mlp_moe", true);
  keys.expect("moe_layer_num_skipped", 0);
  keys.expect("norm_topk_prob", true);
  const AttentionConfig attention = read_hunyuan_attention(keys, config);
  const int layers = keys.integer("num_hidden_layers"), width = keys.integer("intermediate_size");
  ExpertsConfig experts{.width = width,
                        .activation = read_activation(keys),
                        .router = RouterConfig{.norm = RouterNorm::kSelected},
                        .shared = 1};
  config.layers = uniform_layers(layers, attention, experts);
  for (int l = 0; l < layers; ++l) {
    ExpertsConfig& e = config.experts(l);
    e.count = integer_of_layer(keys, "num_experts", l, 0);
    e.per_token = integer_of_layer(keys, "moe_topk", l, 1);
    if (keys.has("num_experts_per_tok")) keys.expect("num_experts_per_tok", e.per_token);  // another name for it
    if (const int own = integer_of_layer(keys, "moe_intermediate_size", l, width); own != width)
      fail("moe_intermediate_size: expected intermediate_size = {} in every layer, got {}", width, own);
    if (const int shared = integer_of_layer(keys, "num_shared_expert", l, 1); shared != 1)
      fail("num_shared_expert: expected 1 in every layer, got {}", shared);
  }
}

void read_granitemoeshared(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  ExpertsConfig experts =
      read_softmax_experts(keys, "num_local_experts", "num_experts_per_tok", "intermediate_size", false);
  experts.router->score = RouterScore::kSelectedSoftmax;
  set_shared_experts("shared_intermediate_size", keys.integer("shared_intermediate_size", 0), experts);
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  read_granite_factors(keys, config);
}

void read_granitemoe(const ConfigKeys& keys, ModelConfig& config) {
  keys.expect("shared_intermediate_size", 0);
  read_granitemoeshared(keys, config);
}

void read_flex_olmo(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kFull;
  const ExpertsConfig experts = read_softmax_experts(keys, "num_experts", "num_experts_per_tok", "intermediate_size",
                                                     keys.flag("norm_topk_prob"));
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  set_norms(BlockNorm::kAfter, config);
}

constexpr std::array kRoutedFamilies = {
    Family{"qwen2_moe", read_qwen2_moe,
           R"({"rms_norm_eps": 1e-6, "qkv_bias": true, "sliding_window": 4096, "max_window_layers": 28,
               "decoder_sparse_step": 1})"},
    Family{"glm4_moe", read_glm4_moe,
           R"({"rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
               "n_shared_experts": 1, "first_k_dense_replace": 1, "num_key_value_heads": 8,
               "num_nextn_predict_layers": 1})"},
    Family{"solar_open", read_solar_open,
           R"({"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
               "n_shared_experts": 1, "head_dim": 128, "num_key_value_heads": 8})"},
    Family{"dots1", read_dots1,
           R"({"rms_norm_eps": 1e-6, "routed_scaling_factor": 1.0, "sliding_window": 4096, "max_window_layers": 62})"},
    Family{"minimax_m2", read_minimax_m2,
           R"({"rms_norm_eps": 1e-6, "rope_theta": 5000000.0, "head_dim": 128, "num_key_value_heads": 8})"},
    Family{"ernie4_5", read_ernie4_5,
           R"({"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true, "head_dim": 128,
               "num_key_value_heads": 2})"},
    Family{"ernie4_5_moe", read_ernie4_5_moe,
           R"({"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true, "moe_norm_min": 1e-12,
               "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": -1,
               "moe_layer_interval": 1, "num_key_value_heads": 4})"},
    Family{"hunyuan_v1_dense", read_hunyuan_v1_dense, R"({"rms_norm_eps": 1e-5})"},
    Family{"hunyuan_v1_moe", read_hunyuan_v1_moe, R"({"rms_norm_eps": 1e-5})"},
    Family{"granitemoe", read_granitemoe, R"({"rms_norm_eps": 1e-6, "attention_multiplier": 1.0})"},
    Family{"granitemoeshared", read_granitemoeshared, R"({"rms_norm_eps": 1e-6, "attention_multiplier": 1.0})"},
    Family{"flex_olmo", read_flex_olmo, R"({"rms_norm_eps": 1e-6, "rope_theta": 500000.0})"},
};

}  // namespace

std::span<const Family> routed_families() {
  return kRoutedFamilies;
}

}  // namespace foe
