#include "weights/gguf/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "weights/config_json.h"
#include "weights/gguf/architectures.h"
#include "weights/gguf/gguf_chat.h"

namespace foe {
namespace {

using nlohmann::json;
using Type = GgufValue::Type;

constexpr std::int64_t kMaxFactors = 65536;  // a head's width bounds them; no head is so wide

// An f32 of a file was a decimal number in config.json: 1e-5, and not 9.99999974737875e-06.
double as_written(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

class Translator {
 public:
  explicit Translator(const TensorFolder& gguf) : gguf_(gguf), metadata_(*gguf.gguf()) {
    const auto name = metadata_.text("general.architecture");
    const GgufArchitecture* found = name ? find_gguf_architecture(*name) : nullptr;
    if (!found)
      fail("{}: general.architecture: expected one of {}, got {}", metadata_.source(), gguf_architecture_names(),
           name ? "'" + std::string(name->substr(0, 100)) + "'" : "none");
    architecture_ = found;
    prefix_ = std::string(*name) + ".";
    if (!found->with_experts.empty() && metadata_.integer(key("expert_count")).value_or(0) > 0)
      architecture_ = find_gguf_architecture(found->with_experts);
  }

  json config() {
    root_ = json::parse(architecture_->config);
    root_["model_type"] = architecture_->model_type;
    copy_keys();
    read_tensors();
    read_layers();
    read_widths();
    read_rope_scaling();
    read_tokens();
    read_attention_scale();
    return std::move(root_);
  }

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  // The value of a key that may be an array with one number for each layer, which must then be all the same.
  json value_of(std::string_view name) const {
    const GgufValue& value = metadata_.values().at(name);
    if (value.type != Type::kArray) {
      if (value.type == Type::kF32) return as_written(*metadata_.number(name));
      if (value.type == Type::kBool) return *metadata_.flag(name);
      if (value.type == Type::kF64) return *metadata_.number(name);
      return *metadata_.integer(name);
    }
    const std::vector<double> numbers = *metadata_.numbers(name);
    const bool same = !numbers.empty() && std::ranges::count(numbers, numbers[0]) == std::ssize(numbers);
    if (!same || !(std::abs(numbers[0]) <= 1e9) || numbers[0] != std::trunc(numbers[0]))
      fail("{}: {}: expected the same integer in every layer, got others", metadata_.source(), name);
    return static_cast<std::int32_t>(numbers[0]);
  }

  const GgufKey* find_key(std::string_view name) const {
    for (const std::span<const GgufKey> keys : {architecture_->keys, common_gguf_keys()})
      for (const GgufKey& known : keys)
        if (known.name == name) return &known;
    return nullptr;
  }

  void copy_keys() {
    for (const auto& [name, value] : metadata_.values()) {
      if (!name.starts_with(prefix_)) continue;
      const GgufKey* known = find_key(name.substr(prefix_.size()));
      if (!known)
        fail("{}: {}: expected only keys that foe knows of this architecture, since another one may change the answers",
             metadata_.source(), name);
      const json said = known->config || known->only ? value_of(name) : json();
      if (known->only && (said.is_boolean() ? json(said.get<bool>() ? 1 : 0) : said) != *known->only)
        fail("{}: {}: expected {}, which is what foe computes, got {}", metadata_.source(), name, *known->only,
             said.dump());
      if (known->config) root_[known->config] = said;
    }
    // A dense model of an architecture with experts has none.
    if (const auto experts = root_.find("num_experts"); experts != root_.end() && *experts == 0) {
      root_.erase("num_experts");
      root_.erase("num_experts_per_tok");
    }
  }

  // The rows of the embedding count; the vocabulary's keys may say less.
  void read_tensors() {
    const std::optional<Tensor> embedding = gguf_.find("token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
      fail("{}: token_embd.weight: expected a matrix, got {}", metadata_.source(),
           embedding ? to_string(embedding->shape) : "none");
    root_["vocab_size"] = embedding->shape[0];
    root_["tie_word_embeddings"] = !gguf_.contains("output.weight");
    if (architecture_->qk_norm_flag) root_[architecture_->qk_norm_flag] = gguf_.contains("blk.0.attn_q_norm.weight");
  }

  // Layers that predict further tokens are no part of the model.
  void read_layers() {
    const std::int64_t further = metadata_.integer(key("nextn_predict_layers")).value_or(0);
    const json layers = root_.value("num_hidden_layers", json());
    if (further == 0 || !layers.is_number_integer()) return;
    const std::int64_t all = layers.get<std::int64_t>();
    if (further < 0 || further > all)
      fail("{}: {}: expected 0 to {}, of so many layers in all, got {}", metadata_.source(),
           key("nextn_predict_layers"), all, further);
    root_["num_hidden_layers"] = all - further;
  }

  void read_widths() {
    const auto integer_in = [&](const char* name) {
      const auto it = root_.find(name);
      return it != root_.end() && it->is_number_integer() ? it->get<std::int64_t>() : 0;
    };
    std::int64_t width = integer_in("head_dim");
    if (width == 0 && integer_in("num_attention_heads") > 0)
      width = integer_in("hidden_size") / integer_in("num_attention_heads");
    const auto expect = [&](const char* name) {
      const auto said = metadata_.integer(key(name));
      if (said && *said != width)
        fail("{}: {}: expected {}, the width of keys, got {}", metadata_.source(), key(name), width, *said);
    };
    expect("attention.value_length");
    const std::int64_t rotary = metadata_.integer(key("rope.dimension_count")).value_or(width);
    if (rotary < 0 || rotary > width)
      fail("{}: {}: expected at most {}, the width of a head, got {}", metadata_.source(), key("rope.dimension_count"),
           width, rotary);
    if (width > 0) root_["partial_rotary_factor"] = static_cast<double>(rotary) / static_cast<double>(width);
    // Families that are not asked for their width by Hugging Face's keys have no other one.
    if (const auto it = root_.find("head_dim");
        it != root_.end() && integer_in("num_attention_heads") * width == integer_in("hidden_size"))
      root_["head_dim"] = width;
  }

  json factors_of(const char* name) const {
    const std::optional<Tensor> tensor = gguf_.find(name);
    if (!tensor || tensor->shape.size() != 1 || tensor->size() > kMaxFactors || in_blocks(tensor->dtype))
      fail("{}: {}: expected a vector of factors, got {}", metadata_.source(), name,
           tensor ? to_string(tensor->shape) : "none");
    std::vector<float> factors(static_cast<std::size_t>(tensor->size()));
    read_floats(*tensor, 0, factors);
    return factors;
  }

  void copy_scaling(json& scaling, const char* name, const char* config) const {
    if (metadata_.has(key(name))) scaling[config] = value_of(key(name));
  }

  void read_rope_scaling() {
    const std::string type(metadata_.text(key("rope.scaling.type")).value_or("none"));
    json scaling = {{"rope_type", type}};
    copy_scaling(scaling, "rope.scaling.factor", "factor");
    copy_scaling(scaling, "rope.scaling.original_context_length", "original_max_position_embeddings");
    const auto of_pairs = [&](const char* short_name, const char* long_name, double attention_factor) {
      scaling["rope_type"] = "longrope";
      scaling["short_factor"] = factors_of(short_name);
      scaling["long_factor"] = factors_of(long_name);
      scaling["attention_factor"] = attention_factor;
      root_["rope_scaling"] = scaling;
    };
    if (gguf_.contains("rope_freqs.weight")) {
      // Llama 3.1's scaling, computed: factors for all lengths.
      scaling["original_max_position_embeddings"] = root_.value("max_position_embeddings", 0);
      return of_pairs("rope_freqs.weight", "rope_freqs.weight", 1);
    }
    if (gguf_.contains("rope_factors_long.weight")) {
      if (scaling.contains("original_max_position_embeddings"))
        root_["original_max_position_embeddings"] = scaling["original_max_position_embeddings"];
      const double attention = metadata_.number(key("rope.scaling.attn_factor")).value_or(1);
      return of_pairs("rope_factors_short.weight", "rope_factors_long.weight", as_written(attention));
    }
    if (const double factor = metadata_.number(key("rope.scaling.attn_factor")).value_or(1); factor != 1)
      fail("{}: {}: expected 1 without factors of pairs, got {}", metadata_.source(), key("rope.scaling.attn_factor"),
           factor);
    if (type == "none") return;
    if (type == "yarn") {
      copy_scaling(scaling, "rope.scaling.yarn_beta_fast", "beta_fast");
      copy_scaling(scaling, "rope.scaling.yarn_beta_slow", "beta_slow");
      if (metadata_.has(key("rope.scaling.yarn_log_multiplier")))
        fail("{}: {}: expected no such key, since foe does not know its meaning in this architecture",
             metadata_.source(), key("rope.scaling.yarn_log_multiplier"));
      scaling.update(json::parse(architecture_->yarn));
    } else if (type != "linear") {
      fail("{}: {}: expected none, linear or yarn, got '{}'", metadata_.source(), key("rope.scaling.type"),
           type.substr(0, 100));
    }
    root_["rope_scaling"] = scaling;
  }

  void read_tokens() {
    if (const auto ends = gguf_end_ids(metadata_); !ends.empty()) root_["eos_token_id"] = ends;
    if (const auto id = metadata_.integer("tokenizer.ggml.bos_token_id"); id && *id >= 0 && *id < INT32_MAX)
      root_["bos_token_id"] = *id;
  }

  void read_attention_scale() {
    if (architecture_->layers_of_largest == 0) return;
    const std::int64_t layers = root_.value("num_hidden_layers", 0), heads = root_.value("num_attention_heads", 0);
    const bool largest = layers == architecture_->layers_of_largest;
    root_["query_pre_attn_scalar"] =
        largest && heads > 0 ? root_.value("hidden_size", 0) / heads : root_.value("head_dim", 256);
  }

  const TensorFolder& gguf_;
  const GgufMetadata& metadata_;
  const GgufArchitecture* architecture_ = nullptr;
  std::string prefix_;
  json root_;
};

}  // namespace

std::string gguf_config_json(const TensorFolder& gguf) {
  return Translator(gguf).config().dump(2);
}

void adapt_to_gguf(const TensorFolder& gguf, ModelConfig& config) {
  const GgufArchitecture& architecture = *find_gguf_architecture(*gguf.gguf()->text("general.architecture"));
  for (int l = 0; l < config.num_layers(); ++l) {
    AttentionConfig& attention = config.attention(l);
    const auto has = [&](const char* name) { return gguf.contains(fmt::format("blk.{}.{}", l, name)); };
    attention.qkv_bias = has("attn_q.bias") || has("attn_qkv.bias");
    attention.output_bias = has("attn_output.bias");
    if (architecture.reordered) attention.interleaved = true;
  }
}

bool is_beside_gguf_model(const TensorFolder& gguf, std::string_view tensor) {
  if (tensor == "rope_freqs.weight" || tensor == "rope_factors_long.weight" || tensor == "rope_factors_short.weight")
    return true;
  const GgufMetadata& metadata = *gguf.gguf();
  const std::string prefix(metadata.text("general.architecture").value_or(""));
  const std::int64_t further = metadata.integer(prefix + ".nextn_predict_layers").value_or(0);
  const std::int64_t first = metadata.integer(prefix + ".block_count").value_or(0) - further;
  for (std::int64_t layer = first; further > 0 && further < 16 && layer < first + further; ++layer)
    if (tensor.starts_with(fmt::format("blk.{}.", layer))) return true;
  return false;
}

ModelConfig load_gguf_config(const std::string& path) {
  const TensorFolder gguf(path);
  if (!gguf.gguf()) fail("{}: expected a GGUF file, got another one", path);
  ModelConfig config = parse_model_config(gguf_config_json(gguf), path);
  adapt_to_gguf(gguf, config);
  validate(config);
  return config;
}

}  // namespace foe
