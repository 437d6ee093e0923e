#include "weights/families/family_parts.h"

#include <algorithm>
#include <string_view>

#include "weights/json_keys.h"
#include "weights/rope_json.h"

namespace foe {
namespace {

using nlohmann::json;

// Reads an object that says how RoPE is scaled, and what may be in it or beside it. `object` may be null.
void read_rope_object(const json* object, const std::string& name, double theta, double share,
                      const RopeContext& context, AttentionConfig& attention) {
  attention.rope_theta = theta;
  attention.rotary_share = share;
  attention.rope_f32 = true;
  if (!object) return;
  read_rope_scaling(*object, name, context, attention);
  keys::within(name, [&] {
    attention.rope_theta = keys::get_double(*object, "rope_theta", theta);
    attention.rotary_share = keys::get_double(*object, "partial_rotary_factor", share);
  });
}

bool is_sliding(const json& type) {
  return type == "sliding_attention";
}

}  // namespace

void read_tokens(const json& root, ModelConfig& config) {
  if (const json* eos = keys::find(root, "eos_token_id")) {
    config.eos_token_ids.clear();
    if (!eos->is_array()) {
      config.eos_token_ids.push_back(keys::as_int(*eos, "eos_token_id"));
    } else {
      for (const json& token : *eos) config.eos_token_ids.push_back(keys::as_int(token, "eos_token_id"));
    }
  }
  if (const json* bos = keys::find(root, "bos_token_id")) config.bos_token_id = keys::as_int(*bos, "bos_token_id");
}

void read_model_keys(const ConfigKeys& keys, ModelConfig& config) {
  config.hidden_size = keys.integer("hidden_size");
  config.vocab_size = keys.integer("vocab_size");
  config.max_position_embeddings = keys.integer("max_position_embeddings");
  config.rms_norm_eps = keys.number("rms_norm_eps");
  config.tie_word_embeddings = keys.flag("tie_word_embeddings");
  read_tokens(keys.root(), config);
  keys.mark({"eos_token_id", "bos_token_id"});
}

void read_rope(const ConfigKeys& keys, AttentionConfig& attention, RotaryShare share) {
  const json* object = nullptr;
  std::string name;
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const json* value = keys.value(key); value && *value != json::object()) {
      object = value;
      name = key;
    }
  const RopeContext context{keys.integer("max_position_embeddings"),
                            keys.integer("original_max_position_embeddings", 0)};
  const double beside = share == RotaryShare::kAny ? keys.number("partial_rotary_factor", 1) : 1;
  read_rope_object(object, name, keys.number("rope_theta", attention.rope_theta), beside, context, attention);
  if (share == RotaryShare::kWhole && attention.rotary_share != 1)
    fail("{}.partial_rotary_factor: expected 1, got {}", name, attention.rotary_share);
}

void read_rope_of_type(const ConfigKeys& keys, const char* type, double theta, AttentionConfig& attention) {
  json object = json::object();
  if (const json* all = keys.value("rope_parameters")) {
    keys::expect_only(*all, "rope_parameters", {"full_attention", "sliding_attention"});
    if (const json* own = keys::find(*all, type)) object = *own;
  }
  const std::string name = std::string("rope_parameters.") + type;
  if (!object.is_object()) fail("{}: expected an object or null, got {}", name, excerpt(object));
  const json* scaling = keys.value("rope_scaling");
  if (scaling && std::string_view(type) == "full_attention") {
    if (!scaling->is_object()) fail("rope_scaling: expected an object or null, got {}", excerpt(*scaling));
    object.update(*scaling);
  }
  read_rope_object(&object, name, theta, 1, {keys.integer("max_position_embeddings"), 0}, attention);
  if (attention.rotary_share != 1) fail("{}.partial_rotary_factor: expected 1, got {}", name, attention.rotary_share);
}

AttentionConfig read_heads(const ConfigKeys& keys, const ModelConfig& config) {
  AttentionConfig attention;
  attention.query_heads = keys.integer("num_attention_heads");
  attention.kv_heads = keys.integer("num_key_value_heads", attention.query_heads);
  if (const json* width = keys.value("head_dim")) {
    attention.key_width = keys::as_int(*width, "head_dim");
  } else {
    if (attention.query_heads < 1 || config.hidden_size % attention.query_heads != 0)
      fail("num_attention_heads: expected a divisor of hidden_size = {} (there is no head_dim), got {}",
           config.hidden_size, attention.query_heads);
    attention.key_width = config.hidden_size / attention.query_heads;
  }
  return attention;
}

AttentionConfig read_attention(const ConfigKeys& keys, const ModelConfig& config, RotaryShare share) {
  AttentionConfig attention = read_heads(keys, config);
  read_rope(keys, attention, share);
  return attention;
}

void set_dense_between(const ConfigKeys& keys, ModelConfig& config) {
  const int step = keys.integer("decoder_sparse_step");
  if (step < 1) fail("decoder_sparse_step: expected at least 1, got {}", step);
  const json* dense = keys.value("mlp_only_layers");
  if (dense && !dense->is_array()) fail("mlp_only_layers: expected a list of layers, got {}", excerpt(*dense));
  keys.mark({"intermediate_size"});  // of dense layers, of which there may be none
  for (int l = 0; l < config.num_layers(); ++l)
    if ((l + 1) % step != 0 || (dense && std::ranges::find(*dense, json(l)) != dense->end()))
      config.experts(l) = read_dense_network(keys);
}

void read_granite_factors(const ConfigKeys& keys, ModelConfig& config) {
  config.embedding_factor = keys.number("embedding_multiplier", 1);
  const double scaling = keys.number("logits_scaling", 1);
  if (!(scaling > 0)) fail("logits_scaling: expected a number above 0, got {}", scaling);
  config.logit_factor = 1 / scaling;
  const double scale = keys.number("attention_multiplier", 1), residual = keys.number("residual_multiplier", 1);
  if (!(scale > 0)) fail("attention_multiplier: expected a number above 0, got {}", scale);
  for_each_attention(config, [&](AttentionConfig& attention) { attention.scale = scale; });
  for (LayerConfig& layer : config.layers)
    for (BlockConfig& block : layer.blocks) block.residual_factor = residual;
}

Activation read_activation(const ConfigKeys& keys, const char* key) {
  const json* value = keys.value(key);
  if (!value) return Activation::kSilu;
  return keys::get_choice(json{{key, *value}}, key, Activation::kSilu,
                          {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu2});
}

ExpertsConfig read_dense_network(const ConfigKeys& keys) {
  return dense_experts(keys.integer("intermediate_size"), read_activation(keys));
}

ExpertsConfig read_softmax_experts(const ConfigKeys& keys, int count, const char* per_token, const char* width,
                                   bool renormalises) {
  return {.count = count,
          .per_token = keys.integer(per_token),
          .width = keys.integer(width),
          .activation = read_activation(keys),
          .router = RouterConfig{.norm = renormalises ? RouterNorm::kSelected : RouterNorm::kNone}};
}

void set_norms(BlockNorm norm, ModelConfig& config) {
  for (LayerConfig& layer : config.layers)
    for (BlockConfig& block : layer.blocks) block.norm = norm;
}

int read_window(const ConfigKeys& keys, bool in_use) {
  const json* window = keys.find("sliding_window");
  if (!window || !in_use) return 0;
  const int size = keys::as_int(*window, "sliding_window");
  if (size >= keys.integer("max_position_embeddings")) return 0;
  if (size < 1) fail("sliding_window: expected null or at least 1, got {}", size);
  return size;
}

int read_window_of_all(const ConfigKeys& keys, bool in_use) {
  const int window = read_window(keys, in_use);
  const json* types = keys.value("layer_types");
  if (!types) return window;
  // A window that is at least as long as the context may be that of either type.
  const json* said = keys.find("sliding_window");
  const bool either = window == 0 && in_use && said;
  const char* const expected = window > 0 ? "sliding_attention" : "full_attention";
  const auto fits = [&](const json& type) { return type == expected || (either && is_sliding(type)); };
  if (!types->is_array() || !std::ranges::all_of(*types, fits))
    fail("layer_types: expected a list of \"{}\" alone with sliding_window = {}, got {}", expected, window,
         excerpt(*types));
  return window;
}

std::vector<bool> read_windowed_layers(const ConfigKeys& keys, int layers, const std::function<bool(int)>& windowed) {
  const json* types = keys.value("layer_types");
  std::vector<bool> result(layers);
  if (types) {
    const auto known = [](const json& type) { return type == "full_attention" || is_sliding(type); };
    if (!types->is_array() || static_cast<int>(types->size()) != layers || !std::ranges::all_of(*types, known))
      fail(
          "layer_types: expected a list of \"full_attention\" and \"sliding_attention\", one for each of {} layers,"
          " got {}",
          layers, excerpt(*types));
  }
  for (int l = 0; l < layers; ++l) result[l] = types ? is_sliding((*types)[l]) : windowed(l);
  return result;
}

void set_windows(const ConfigKeys& keys, const std::vector<bool>& windowed, ModelConfig& config, bool in_use) {
  const int window = read_window(keys, in_use);
  for (int l = 0; l < config.num_layers(); ++l) config.attention(l).window = windowed[l] ? window : 0;
}

}  // namespace foe
