#include "weights/config_json.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "weights/attention_json.h"
#include "weights/experts_json.h"
#include "weights/json_keys.h"
#include "weights/layers_json.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

constexpr std::size_t kMaxConfigBytes = 16 << 20;

// What a dialect implies if the file does not say it.
struct Dialect {
  std::string_view model_type;
  QkNorm qk_norm = QkNorm::kNone;
  bool sparse = false;               // the model must have experts
  bool always_renormalises = false;  // there is no key norm_topk_prob: it is always true
  bool windows = false;              // sliding_window is of all layers
  bool biases = true;                // attention_bias is of all four projections
};

constexpr Dialect kFoe = {.model_type = "foe", .windows = true};
constexpr std::array<Dialect, 7> kDialects = {{
    kFoe,
    {"olmoe", QkNorm::kFull, true},
    {"mixtral", QkNorm::kNone, true, true, true, false},
    {"qwen3_moe", QkNorm::kHead, true},
    {"llama"},
    {.model_type = "mistral", .windows = true, .biases = false},
    {"qwen3", QkNorm::kHead},
}};

// --- groups of keys

bool has_our_keys(const json& root) {
  for (const char* key : {"expert_groups", "residual", "group_sync", "qk_norm", "layers", "embedding_factor",
                          "logit_factor", "logit_softcap"})
    if (find(root, key)) return true;
  return false;
}

Dialect find_dialect(const json& root) {
  const json* type = find(root, "model_type");
  if (!type) return kFoe;
  if (!type->is_string()) fail("model_type: expected a string, got {}", excerpt(*type));
  for (const Dialect& dialect : kDialects)
    if (*type == dialect.model_type) return dialect;
  if (has_our_keys(root)) return kFoe;
  std::string names;
  for (const Dialect& dialect : kDialects) names += fmt::format(" {}", dialect.model_type);
  fail("model_type: expected one of{}, got {}", names, excerpt(*type));
}

void refuse_other_architectures(const json& root, const Dialect& dialect) {
  const auto expect = [&root](const char* key, const json& expected) {
    const json* value = find(root, key);
    if (value && *value != expected) fail("{}: expected {}, got {}", key, expected.dump(), excerpt(*value));
  };
  if (!dialect.biases) expect("attention_bias", false);
  expect("mlp_bias", false);
  expect("clip_qkv", nullptr);
  expect("quantization_config", nullptr);
  expect("decoder_sparse_step", 1);  // 1: every layer has experts
  expect("mlp_only_layers", json::array());
  if (dialect.model_type != kFoe.model_type) expect("partial_rotary_factor", 1.0);
}

// Returns the window of all layers, or 0 if there is none. One that is at least as long as the context has no effect.
int read_window(const json& root, const Dialect& dialect) {
  if (!find(root, "sliding_window") || !get_bool(root, "use_sliding_window", true)) return 0;
  const int window = get_int(root, "sliding_window"), positions = get_int(root, "max_position_embeddings");
  if (window >= positions || (window == 0 && dialect.model_type == kFoe.model_type)) return 0;
  if (!dialect.windows)
    fail("sliding_window: expected null or at least max_position_embeddings = {} in a model of type {}, got {}",
         positions, dialect.model_type, window);
  if (window < 1) fail("sliding_window: expected null or at least 1, got {}", window);
  return window;
}

// A window that is at least as long as the context may be that of either type.
void check_layer_types(const json& root, int window) {
  const json* types = find(root, "layer_types");
  if (!types) return;
  const bool either =
      window == 0 && get_bool(root, "use_sliding_window", true) && get_int(root, "sliding_window", 0) > 0;
  const char* const expected = window > 0 ? "sliding_attention" : "full_attention";
  const auto fits = [&](const json& type) { return type == expected || (either && type == "sliding_attention"); };
  if (!types->is_array() || !std::ranges::all_of(*types, fits))
    fail("layer_types: expected a list of \"{}\" alone with sliding_window = {}, got {}", expected, window,
         excerpt(*types));
}

ExpertsConfig read_experts(const json& root, const Dialect& dialect) {
  const json* experts = find(root, "num_experts");
  const json* local = find(root, "num_local_experts");  // Mixtral's name and, in transformers 5, that of all models
  if (experts && local && *experts != *local)
    fail("num_experts: expected the value of num_local_experts = {}, got {}", excerpt(*local), excerpt(*experts));
  if (!experts) experts = local;
  const int count = experts ? as_int(*experts, "num_experts") : 0;
  if (dialect.sparse && count == 0)
    fail("num_experts: expected at least 1 in a model of type {}, got {}", dialect.model_type,
         experts ? "0" : "no such key");
  const bool has_moe_width = find(root, "moe_intermediate_size");
  if (count == 0) {
    const bool ours = has_moe_width && !find(root, "intermediate_size");
    return dense_experts(get_int(root, ours ? "moe_intermediate_size" : "intermediate_size"),
                         read_activation(root, Activation::kSilu));
  }
  // If both are there, intermediate_size is the width of dense layers (Qwen3-MoE). OLMoE and Mixtral have only
  // intermediate_size.
  const bool moe_width = has_moe_width || dialect.model_type == "qwen3_moe";
  const bool renormalises = get_bool(root, "norm_topk_prob", dialect.always_renormalises);
  if (dialect.always_renormalises && !renormalises)
    fail("norm_topk_prob: expected true in a model of type {}, got false", dialect.model_type);
  return {.count = count,
          .per_token = get_int(root, "num_experts_per_tok"),
          .width = get_int(root, moe_width ? "moe_intermediate_size" : "intermediate_size"),
          .activation = read_activation(root, Activation::kSilu),
          .router = RouterConfig{.norm = renormalises ? RouterNorm::kSelected : RouterNorm::kNone}};
}

// The keys of attention that are read in every dialect.
json keys_of_families(const json& root) {
  json object = json::object();
  for (const char* key : {"qk_norm", "rope_theta", "rope_parameters", "rope_scaling"})
    if (const json* value = find(root, key)) object[key] = *value;
  return object;
}

AttentionConfig read_attention(const json& root, const Dialect& dialect, int hidden_size) {
  AttentionConfig attention;
  attention.query_heads = get_int(root, "num_attention_heads");
  attention.kv_heads = get_int(root, "num_key_value_heads", attention.query_heads);
  attention.key_width = get_int(root, "head_dim", 0);
  if (!find(root, "head_dim")) {
    if (attention.query_heads < 1 || hidden_size % attention.query_heads != 0)
      fail("num_attention_heads: expected a divisor of hidden_size = {} (there is no head_dim), got {}", hidden_size,
           attention.query_heads);
    attention.key_width = hidden_size / attention.query_heads;
  }
  attention.qk_norm = dialect.qk_norm;
  attention.qkv_bias = attention.output_bias = get_bool(root, "attention_bias", false);
  read_attention_keys(dialect.model_type == kFoe.model_type ? root : keys_of_families(root), attention);
  attention.window = read_window(root, dialect);
  check_layer_types(root, attention.window);
  return attention;
}

// Reads the end-of-text ids: an integer or a list of integers.
void read_tokens(const json& root, ModelConfig& config) {
  if (const json* eos = find(root, "eos_token_id")) {
    config.eos_token_ids.clear();
    if (!eos->is_array()) {
      config.eos_token_ids.push_back(as_int(*eos, "eos_token_id"));
    } else {
      for (const json& token : *eos) config.eos_token_ids.push_back(as_int(token, "eos_token_id"));
    }
  }
  if (const json* bos = find(root, "bos_token_id")) config.bos_token_id = as_int(*bos, "bos_token_id");
}

json parse_object(std::string_view text, const std::string& source) {
  json root = parse_strict_json(text, source);
  if (!root.is_object()) fail("{}: expected a JSON object, got {}", source, excerpt(root));
  return root;
}

// Returns the width of dense layers among sparse ones, or 0 if only their own keys say it.
int dense_width(const json& root, const ExpertsConfig& experts) {
  return !experts.dense() && find(root, "moe_intermediate_size") ? get_int(root, "intermediate_size", 0) : 0;
}

ModelConfig read_config(const json& root) {
  const Dialect dialect = find_dialect(root);
  refuse_other_architectures(root, dialect);
  ModelConfig config;
  const json* type = find(root, "model_type");
  config.model_type = type ? type->get<std::string>() : std::string(kFoe.model_type);
  config.hidden_size = get_int(root, "hidden_size");
  config.vocab_size = get_int(root, "vocab_size");
  config.max_position_embeddings = get_int(root, "max_position_embeddings");
  config.rms_norm_eps = as_double(require(root, "rms_norm_eps"), "rms_norm_eps");
  config.tie_word_embeddings = get_bool(root, "tie_word_embeddings", false);
  const AttentionConfig attention = read_attention(root, dialect, config.hidden_size);
  ExpertsConfig experts = read_experts(root, dialect);
  if (dialect.model_type == kFoe.model_type) read_expert_keys(root, experts);
  config.embedding_factor = get_double(root, "embedding_factor", config.embedding_factor);
  config.logit_factor = get_double(root, "logit_factor", config.logit_factor);
  config.logit_softcap = get_double(root, "logit_softcap", config.logit_softcap);
  config.expert_groups = get_int(root, "expert_groups", 1);
  config.residual = get_choice(root, "residual", Residual::kShared, {Residual::kShared, Residual::kFederated});
  config.group_sync = get_choice(root, "group_sync", GroupSync::kMean, {GroupSync::kMean, GroupSync::kSum});
  if (const json* layers = find(root, "layers"))
    read_layers(*layers, {attention, experts, dense_width(root, experts)}, config);
  const int layers = find(root, "layers") ? get_int(root, "num_hidden_layers", config.num_layers())
                                          : get_int(root, "num_hidden_layers");
  if (config.layers.empty()) config.layers = uniform_layers(layers, attention, experts);
  if (layers != config.num_layers())
    fail("num_hidden_layers: expected {}, as there are in layers, got {}", config.num_layers(), layers);
  read_tokens(root, config);
  validate(config);
  return config;
}

// Runs `read`, and puts the file's name in front of its errors, which name only keys.
template <typename Read>
void naming_file(const std::string& source, const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    fail("{}: {}", source, error.what());
  }
}

// The first layer's blocks, as far as keys for all layers say them.
BlockDefaults defaults_of(const ModelConfig& config) {
  return {config.attention(0), config.experts(0)};
}

// Whether keys for all layers say everything.
bool is_uniform(const ModelConfig& config) {
  const LayerConfig plain{{{.computes = config.attention(0)}, {.computes = config.experts(0)}}};
  return std::ranges::all_of(config.layers, [&](const LayerConfig& layer) { return layer == plain; });
}

// Writes our own keys of a model whose layers are alike, or of its first layer.
void write_our_keys(const ModelConfig& config, nlohmann::ordered_json& root) {
  const AttentionConfig& a = config.attention(0);
  AttentionConfig plain;
  plain.query_heads = a.query_heads;
  plain.kv_heads = a.kv_heads;
  plain.key_width = a.key_width;
  plain.qk_norm = a.qk_norm;
  plain.rope_theta = a.rope_theta;
  plain.rope_factor = a.rope_factor;
  plain.qkv_bias = plain.output_bias = a.qkv_bias && a.output_bias;  // attention_bias
  write_attention_keys(a, plain, root);
  const ExpertsConfig& e = config.experts(0);
  ExpertsConfig other;
  // What norm_topk_prob says needs no other key.
  if (e.router)
    other.router =
        RouterConfig{.norm = e.router->norm == RouterNorm::kSelected ? RouterNorm::kSelected : RouterNorm::kNone};
  write_expert_keys(e, other, root);
  write_other(root, "embedding_factor", config.embedding_factor, 1);
  write_other(root, "logit_factor", config.logit_factor, 1);
  write_other(root, "logit_softcap", config.logit_softcap, 0);
  if (!is_uniform(config)) root["layers"] = write_layers(config, defaults_of(config));
}

bool is_olmoe(const ModelConfig& config) {
  nlohmann::ordered_json ours;
  write_our_keys(config, ours);
  const AttentionConfig& attention = config.attention(0);
  return !config.dense() && ours.empty() && config.expert_groups == 1 && attention.qk_norm == QkNorm::kFull &&
         config.experts(0).activation == Activation::kSilu && attention.queries_width() == config.hidden_size;
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, const std::string& source) {
  const json root = parse_object(text, source);
  ModelConfig config;
  naming_file(source, [&] { config = read_config(root); });
  return config;
}

ModelConfig load_model_config(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  ModelConfig config = parse_model_config(read_text_file(path, kMaxConfigBytes), path);
  const std::string generation = model_dir + "/generation_config.json";
  if (!std::filesystem::exists(generation)) return config;
  const json root = parse_object(read_text_file(generation, kMaxConfigBytes), generation);
  naming_file(generation, [&] {
    read_tokens(root, config);
    validate(config);
  });
  return config;
}

std::string model_config_json(const ModelConfig& config) {
  validate(config);
  const bool olmoe = is_olmoe(config);
  const AttentionConfig& attention = config.attention(0);
  const ExpertsConfig& experts = config.experts(0);
  nlohmann::ordered_json root;
  root["architectures"] = {olmoe ? "OlmoeForCausalLM" : "FoeForCausalLM"};
  root["model_type"] = olmoe ? "olmoe" : "foe";
  root["vocab_size"] = config.vocab_size;
  root["hidden_size"] = config.hidden_size;
  root["num_hidden_layers"] = config.num_layers();
  root["num_attention_heads"] = attention.query_heads;
  root["num_key_value_heads"] = attention.kv_heads;
  root["head_dim"] = attention.key_width;
  if (attention.qkv_bias && attention.output_bias) root["attention_bias"] = true;
  root["hidden_act"] = to_string(experts.activation);
  if (experts.dense()) {
    root["intermediate_size"] = experts.width;
  } else {
    root["num_experts"] = experts.count;
    root["num_experts_per_tok"] = experts.per_token;
    root[olmoe ? "intermediate_size" : "moe_intermediate_size"] = experts.width;
    root["norm_topk_prob"] = experts.router->norm == RouterNorm::kSelected;
  }
  write_our_keys(config, root);
  if (!olmoe) {
    root["qk_norm"] = to_string(attention.qk_norm);
    root["expert_groups"] = config.expert_groups;
  }
  // In an ordinary MoE these have no effect, and transformers ignores them.
  if (!olmoe || config.residual != Residual::kShared) root["residual"] = to_string(config.residual);
  if (!olmoe || config.group_sync != GroupSync::kMean) root["group_sync"] = to_string(config.group_sync);
  root["max_position_embeddings"] = config.max_position_embeddings;
  root["rope_theta"] = attention.rope_theta;
  if (attention.rope_factor == 1.0) {
    root["rope_scaling"] = nullptr;
  } else {
    root["rope_scaling"] = {{"rope_type", "linear"}, {"factor", attention.rope_factor}};
  }
  root["rms_norm_eps"] = config.rms_norm_eps;
  root["tie_word_embeddings"] = config.tie_word_embeddings;
  const auto& eos = config.eos_token_ids;
  // Null if there is none: without the key, transformers would use the default ids of the family.
  root["eos_token_id"] = eos.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(eos);
  if (eos.size() == 1) root["eos_token_id"] = eos.front();
  root["bos_token_id"] = config.bos_token_id ? nlohmann::ordered_json(*config.bos_token_id) : nlohmann::ordered_json();
  return root.dump(2) + "\n";
}

}  // namespace foe
