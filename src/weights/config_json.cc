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
#include "weights/experts_json.h"
#include "weights/json_keys.h"

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
  return find(root, "expert_groups") || find(root, "residual") || find(root, "group_sync") || find(root, "qk_norm");
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
  expect("hidden_act", "silu");
  if (!dialect.biases) expect("attention_bias", false);
  expect("mlp_bias", false);
  expect("clip_qkv", nullptr);
  expect("partial_rotary_factor", 1.0);
  expect("quantization_config", nullptr);
  expect("decoder_sparse_step", 1);  // 1: every layer has experts
  expect("mlp_only_layers", json::array());
}

// Returns the window of all layers, or 0 if there is none. One that is at least as long as the context has no effect.
int read_window(const json& root, const Dialect& dialect) {
  if (!find(root, "sliding_window") || !get_bool(root, "use_sliding_window", true)) return 0;
  const int window = get_int(root, "sliding_window"), positions = get_int(root, "max_position_embeddings");
  if (window >= positions) return 0;
  if (!dialect.windows)
    fail("sliding_window: expected null or at least max_position_embeddings = {} in a model of type {}, got {}",
         positions, dialect.model_type, window);
  if (window < 1) fail("sliding_window: expected null or at least 1, got {}", window);
  const json* types = find(root, "layer_types");
  if (types && std::ranges::any_of(*types, [](const json& type) { return type != "sliding_attention"; }))
    fail("layer_types: expected \"sliding_attention\" alone with sliding_window = {}, got {}", window, excerpt(*types));
  return window;
}

// `rope` is the object that holds rope_type and factor: transformers 4 calls it rope_scaling, 5 rope_parameters.
double read_rope_factor(const json& rope, const char* key) {
  if (!rope.is_object()) fail("{}: expected an object or null, got {}", key, excerpt(rope));
  const json* type = find(rope, "rope_type");
  if (!type) type = find(rope, "type");
  if (type && *type == "linear") {
    const std::string factor_key = fmt::format("{}.factor", key);
    const json* factor = find(rope, "factor");
    if (!factor) fail("{}: expected a number, got none", factor_key);
    return as_double(*factor, factor_key.c_str());
  }
  const bool plain = type ? *type == "default" : !find(rope, "factor");
  if (!plain)
    fail("{}.rope_type: expected \"default\" or \"linear\", got {}", key, type ? excerpt(*type) : std::string("none"));
  return 1.0;
}

void read_rope(const json& root, AttentionConfig& attention) {
  const json* theta = find(root, "rope_theta");
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* rope = find(root, key);
    if (!rope) continue;
    attention.rope_factor = read_rope_factor(*rope, key);
    if (const json* inner = find(*rope, "rope_theta")) theta = inner;
    if (const json* part = find(*rope, "partial_rotary_factor"); part && *part != 1.0)
      fail("{}.partial_rotary_factor: expected 1, got {}", key, excerpt(*part));
    break;
  }
  if (theta) attention.rope_theta = as_double(*theta, "rope_theta");
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
    return dense_experts(get_int(root, ours ? "moe_intermediate_size" : "intermediate_size"));
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
          .router = RouterConfig{.norm = renormalises ? RouterNorm::kSelected : RouterNorm::kNone}};
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
  attention.qk_norm = get_choice(root, "qk_norm", dialect.qk_norm, {QkNorm::kNone, QkNorm::kHead, QkNorm::kFull});
  attention.qkv_bias = attention.output_bias = get_bool(root, "attention_bias", false);
  attention.window = read_window(root, dialect);
  read_rope(root, attention);
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
  config.layers = uniform_layers(get_int(root, "num_hidden_layers"), attention, experts);
  config.expert_groups = get_int(root, "expert_groups", 1);
  config.residual = get_choice(root, "residual", Residual::kShared, {Residual::kShared, Residual::kFederated});
  config.group_sync = get_choice(root, "group_sync", GroupSync::kMean, {GroupSync::kMean, GroupSync::kSum});
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

bool is_olmoe(const ModelConfig& config) {
  nlohmann::ordered_json ours;
  write_expert_keys(config.experts(0), ours);
  return !config.dense() && ours.empty() && config.expert_groups == 1 && config.heads().qk_norm == QkNorm::kFull &&
         config.heads().window == 0 && config.heads().queries_width() == config.hidden_size;
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
  if (attention.qkv_bias) root["attention_bias"] = true;
  if (attention.window > 0) root["sliding_window"] = attention.window;
  root["hidden_act"] = "silu";
  if (experts.dense()) {
    root["intermediate_size"] = experts.width;
  } else {
    root["num_experts"] = experts.count;
    root["num_experts_per_tok"] = experts.per_token;
    root[olmoe ? "intermediate_size" : "moe_intermediate_size"] = experts.width;
    root["norm_topk_prob"] = experts.router->norm == RouterNorm::kSelected;
    write_expert_keys(experts, root);
  }
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
  std::string text = root.dump(2) + "\n";
  ModelConfig read = parse_model_config(text);
  read.model_type = config.model_type;
  if (read != config) fail("layers: expected what the keys of config.json can say, got a model that they would change");
  return text;
}

}  // namespace foe
