#include "weights/config_json.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "weights/attention_json.h"
#include "weights/experts_json.h"
#include "weights/families/family.h"
#include "weights/families/family_parts.h"
#include "weights/gguf/gguf_config.h"
#include "weights/gguf/gguf_shards.h"
#include "weights/json_keys.h"
#include "weights/layers_json.h"
#include "weights/rope_json.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

constexpr std::size_t kMaxConfigBytes = 16 << 20;

constexpr const char* kOurType = "foe";
// Our keys of a whole model, which are read in every family's file.
const std::vector<std::string> kOurKeys = {"expert_groups", "residual",   "group_sync",       "group_sync_every",
                                           "qk_norm",       "layers",     "embedding_factor", "logit_factor",
                                           "logit_softcap", "norm_offset"};

// Our own type, and any type that is not known in a file with our keys, is null.
const Family* family_of(const json& root) {
  const json* type = find(root, "model_type");
  const bool ours = std::ranges::any_of(kOurKeys, [&](const std::string& key) { return find(root, key.c_str()); });
  if (!type) {
    // What has a class of transformers is of a family, and read as another it would give other answers.
    const json* classes = find(root, "architectures");
    if (classes && !ours) fail("model_type: expected the type of {}, got none", excerpt(*classes));
    return nullptr;
  }
  if (!type->is_string()) fail("model_type: expected a string, got {}", excerpt(*type));
  if (*type == kOurType) return nullptr;
  if (const Family* family = find_family(type->get<std::string>())) return family;
  if (ours) return nullptr;
  fail("model_type: expected one of {}{}, got {}", kOurType, family_names(), excerpt(*type));
}

// --- our own dialect

ExpertsConfig read_own_experts(const ConfigKeys& keys) {
  const json& root = keys.root();
  const int count = get_int(root, "num_experts", 0);
  const bool has_moe_width = find(root, "moe_intermediate_size");
  if (count == 0) {
    const bool ours = has_moe_width && !find(root, "intermediate_size");
    return dense_experts(get_int(root, ours ? "moe_intermediate_size" : "intermediate_size"));
  }
  ExpertsConfig experts{.count = count,
                        .per_token = get_int(root, "num_experts_per_tok"),
                        .width = get_int(root, has_moe_width ? "moe_intermediate_size" : "intermediate_size"),
                        .router = RouterConfig{}};
  if (get_bool(root, "norm_topk_prob", false)) experts.router->norm = RouterNorm::kSelected;
  return experts;
}

AttentionConfig read_own_attention(const ConfigKeys& keys, const ModelConfig& config) {
  AttentionConfig attention = read_heads(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  read_attention_keys(keys.root(), attention);
  read_rope(keys, attention, RotaryShare::kAny);  // what is beside "rope_theta", too
  attention.rope_f32 = keys.flag("rope_f32");
  const bool windows = keys.flag("use_sliding_window", true) && attention.window != 0;
  attention.window = read_window_of_all(keys, windows);
  return attention;
}

void read_ours(const ConfigKeys& keys, ModelConfig& config) {
  keys.mark(attention_keys());
  keys.mark(expert_keys());
  const AttentionConfig attention = read_own_attention(keys, config);
  ExpertsConfig experts = read_own_experts(keys);
  read_network_keys(keys.root(), experts);
  read_expert_keys(keys.root(), experts);
  // "layers" may say how many there are.
  const int layers = keys.has("layers") ? keys.integer("num_hidden_layers", 1) : keys.integer("num_hidden_layers");
  config.layers = uniform_layers(layers, attention, experts);
}

// Returns the width of dense layers among sparse ones, or 0 if only their own keys say it.
int dense_width(const json& root, const ExpertsConfig& experts) {
  return !experts.dense() && find(root, "moe_intermediate_size") ? get_int(root, "intermediate_size", 0) : 0;
}

void read_our_keys(const ConfigKeys& keys, ModelConfig& config) {
  const json& root = keys.root();
  keys.mark(kOurKeys);
  config.norm_offset = get_double(root, "norm_offset", config.norm_offset);
  config.embedding_factor = get_double(root, "embedding_factor", config.embedding_factor);
  config.logit_factor = get_double(root, "logit_factor", config.logit_factor);
  config.logit_softcap = get_double(root, "logit_softcap", config.logit_softcap);
  config.expert_groups = get_int(root, "expert_groups", 1);
  config.residual = get_choice(root, "residual", Residual::kShared, {Residual::kShared, Residual::kFederated});
  config.group_sync = get_choice(root, "group_sync", GroupSync::kMean, {GroupSync::kMean, GroupSync::kSum});
  config.group_sync_every = get_int(root, "group_sync_every", config.group_sync_every);
  for_each_attention(config, [&](AttentionConfig& attention) {
    attention.qk_norm = get_choice(root, "qk_norm", attention.qk_norm, {QkNorm::kNone, QkNorm::kHead, QkNorm::kFull});
  });
  if (const json* layers = find(root, "layers")) {
    const BlockDefaults defaults{config.attention(0), config.experts(0), dense_width(root, config.experts(0))};
    config.layers.clear();
    const int count = get_int(root, "num_hidden_layers", 0);
    read_layers(*layers, count, defaults, config);
    if (count != 0 && count != config.num_layers())
      fail("num_hidden_layers: expected {}, as there are in layers, got {}", config.num_layers(), count);
  }
}

json parse_object(std::string_view text, const std::string& source) {
  json root = parse_strict_json(text, source);
  if (!root.is_object()) fail("{}: expected a JSON object, got {}", source, excerpt(root));
  return root;
}

// With "dynamic" RoPE a family's max_position_embeddings is the length of the training, and texts may be longer.
void stretch_context(ModelConfig& config) {
  const RopeScaling& scaling = config.heads().rope_scaling;
  if (scaling.type != RopeType::kDynamic || !(scaling.factor >= 1 && scaling.factor <= 1e6)) return;
  const double positions = scaling.factor * config.max_position_embeddings;
  config.max_position_embeddings = static_cast<int>(std::min(positions, static_cast<double>(1 << 27)));
}

ModelConfig read_config(const json& root, std::vector<std::string>& unknown) {
  const Family* family = family_of(root);
  const json defaults = json::parse(family ? family->defaults : "{}");
  const ConfigKeys keys(root, defaults);
  ModelConfig config;
  const json* type = find(root, "model_type");
  config.model_type = type ? type->get<std::string>() : std::string(kOurType);
  read_model_keys(keys, config);
  (family ? family->read : read_ours)(keys, config);
  if (family) stretch_context(config);
  read_our_keys(keys, config);
  unknown = check_unread_keys(keys, config.model_type);
  if (config.model_type == kOurType && !unknown.empty())
    fail("{}: expected only keys of docs/config.md in a model of type {}, got others", fmt::join(unknown, ", "),
         kOurType);
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
  plain.rope_scaling = a.rope_scaling;
  plain.qkv_bias = plain.output_bias = a.qkv_bias && a.output_bias;  // attention_bias
  write_attention_keys(a, plain, root);
  const ExpertsConfig& e = config.experts(0);
  ExpertsConfig other;
  // What norm_topk_prob says needs no other key.
  if (e.router)
    other.router =
        RouterConfig{.norm = e.router->norm == RouterNorm::kSelected ? RouterNorm::kSelected : RouterNorm::kNone};
  other.activation = e.activation;  // hidden_act
  write_network_keys(e, other, root);
  write_expert_keys(e, other, root);
  write_other(root, "group_sync_every", config.group_sync_every, 1);
  write_other(root, "norm_offset", config.norm_offset, 0);
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

ModelConfig parse_model_config(std::string_view text, const std::string& source, std::vector<std::string>* unknown) {
  const json root = parse_object(text, source);
  ModelConfig config;
  std::vector<std::string> keys;
  naming_file(source, [&] { config = read_config(root, keys); });
  if (unknown) *unknown = std::move(keys);
  return config;
}

std::vector<std::string> config_notes(const std::string& model_dir) {
  if (is_gguf_path(model_dir)) return {};  // keys that are not known are errors there
  const std::string path = model_dir + "/config.json";
  std::vector<std::string> unknown;
  const ModelConfig config = parse_model_config(read_text_file(path, kMaxConfigBytes), path, &unknown);
  std::vector<std::string> notes;
  if (!unknown.empty())
    notes.push_back(
        fmt::format("config.json has keys that foe does not know, and does not read: {}", fmt::join(unknown, ", ")));
  if (!config.unused_tensors.empty())
    notes.push_back(fmt::format("layers that predict further tokens are not read: tensors that begin with {}",
                                fmt::join(config.unused_tensors, ", ")));
  return notes;
}

ModelConfig load_model_config(const std::string& model_dir) {
  if (is_gguf_path(model_dir)) return load_gguf_config(model_dir);
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
  const bool scaled = attention.rope_factor != 1 || attention.rope_scaling.type != RopeType::kDefault;
  root["rope_scaling"] = scaled ? write_rope_scaling(attention) : nlohmann::ordered_json();
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
