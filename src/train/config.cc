#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "base/thread_pool.h"
#include "weights/config_json.h"
#include "weights/identity.h"
#include "weights/layers_json.h"

namespace foe::train {
namespace {

constexpr std::size_t kMaxConfigBytes = 1 << 20;
constexpr int kMaxInt = std::numeric_limits<int>::max();

// One table of the file. Each get_* reads a key, checks its range and remembers it. Keys that were never read are
// errors.
class Table {
 public:
  // Values are added to `identity` unless it is null.
  Table(const toml::table& file, const std::string& source, std::string name,
        std::map<std::string, std::string>* identity)
      : source_(source), name_(std::move(name)), identity_(identity) {
    const toml::node* node = file.get(name_);
    if (!node) return;
    table_ = node->as_table();
    if (!table_) fail("{}: {}: expected a table, got {}", source_, name_, describe(*node));
  }

  void get_int(const char* key, int& value, int low, int high, bool required = false) {
    std::int64_t wide = value;
    get_integer(key, wide, low, high, required);
    value = static_cast<int>(wide);
  }

  void get_integer(const char* key, std::int64_t& value, std::int64_t low, std::int64_t high, bool required = false) {
    if (const toml::node* node = find(key, required)) {
      const std::optional<std::int64_t> found =
          node->is_integer() ? std::optional<std::int64_t>(node->as_integer()->get()) : std::nullopt;
      if (!found || *found < low || *found > high)
        fail("{}: {}.{}: expected an integer from {} to {}, got {}", source_, name_, key, low, high, describe(*node));
      value = *found;
    }
    remember(key, fmt::format("{}", value));
  }

  void get_number(const char* key, double& value, double low, double high) {
    if (const toml::node* node = find(key, false)) {
      const std::optional<double> found = node->is_number() ? node->value<double>() : std::nullopt;
      if (!found || !(*found >= low && *found <= high))
        fail("{}: {}.{}: expected a number from {} to {}, got {}", source_, name_, key, low, high, describe(*node));
      value = *found;
    }
    remember(key, fmt::format("{}", value));
  }

  // Keys that came later than checkpoints of other models are only read, and part of the identity, if they are there.
  bool has(const char* key) { return find(key, false) != nullptr; }

  // Reads the path of a folder, which is not part of the identity: what is in the folder is.
  void get_folder(const char* key, std::string& value, const std::filesystem::path& base) {
    if (const toml::node* node = find(key, false)) {
      if (!node->is_string()) fail("{}: {}.{}: expected a string, got {}", source_, name_, key, describe(*node));
      value = node->as_string()->get();
    }
    if (!value.empty()) value = (base / value).string();
  }

  // Returns the value as JSON, or null without the key, which is then not part of the identity.
  nlohmann::json get_json(const char* key) {
    const toml::node* node = find(key, false);
    if (!node) return {};
    std::ostringstream text;
    node->visit([&](const auto& value) { text << toml::json_formatter(value); });
    const nlohmann::json json = parse_strict_json(text.str(), source_);
    remember(key, json.dump());
    return json;
  }

  void get_bool(const char* key, bool& value) {
    if (const toml::node* node = find(key, false)) {
      if (!node->is_boolean()) fail("{}: {}.{}: expected true or false, got {}", source_, name_, key, describe(*node));
      value = node->as_boolean()->get();
    }
    remember(key, value ? "true" : "false");
  }

  void get_string(const char* key, std::string& value) {
    if (const toml::node* node = find(key, false)) {
      if (!node->is_string()) fail("{}: {}.{}: expected a string, got {}", source_, name_, key, describe(*node));
      value = node->as_string()->get();
    }
    remember(key, value);
  }

  // Reads one of a few names, which to_string() gives for each value.
  template <typename Enum>
  void get_enum(const char* key, Enum& value, std::initializer_list<Enum> values) {
    std::string name = to_string(value);
    get_string(key, name);
    std::string names;
    for (const Enum candidate : values) {
      if (name == to_string(candidate)) {
        value = candidate;
        return;
      }
      names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", to_string(candidate));
    }
    fail("{}: {}.{}: expected one of {}, got \"{}\"", source_, name_, key, names, shorten(name));
  }

  void finish() const {
    if (!table_) return;
    for (const auto& [key, node] : *table_)
      if (!known_.count(std::string(key.str())))
        fail("{}: {}: unknown key \"{}\"; expected {}", source_, name_, shorten(std::string(key.str())),
             fmt::join(known_, ", "));
  }

 private:
  const toml::node* find(const char* key, bool required) {
    known_.insert(key);
    const toml::node* node = table_ ? table_->get(key) : nullptr;
    if (!node && required) fail("{}: {}.{}: expected a value, found none", source_, name_, key);
    return node;
  }

  void remember(const char* key, std::string text) {
    if (identity_) (*identity_)[name_ + "." + key] = std::move(text);
  }

  static std::string describe(const toml::node& node) {
    std::ostringstream text;
    node.visit([&](const auto& value) { text << value; });
    return shorten(text.str());
  }

  const std::string& source_;
  std::string name_;
  const toml::table* table_ = nullptr;
  std::map<std::string, std::string>* identity_;
  std::set<std::string> known_;
};

void read_model(Table table, ModelConfig& m, int default_context) {
  const auto size = [&](const char* key, int& value) { table.get_int(key, value, 1, kMaxInt, true); };
  AttentionConfig attention;
  ExpertsConfig experts;
  int layers = 0;
  bool norm_topk_prob = false;
  size("hidden_size", m.hidden_size);
  size("num_hidden_layers", layers);
  size("num_attention_heads", attention.query_heads);
  size("num_key_value_heads", attention.kv_heads);
  size("head_dim", attention.key_width);
  size("vocab_size", m.vocab_size);
  size("num_experts", experts.count);
  size("num_experts_per_tok", experts.per_token);
  size("moe_intermediate_size", experts.width);
  table.get_int("expert_groups", m.expert_groups, 1, kMaxInt);
  table.get_enum("residual", m.residual, {Residual::kShared, Residual::kFederated});
  table.get_enum("group_sync", m.group_sync, {GroupSync::kMean, GroupSync::kSum});
  if (table.has("group_sync_every")) table.get_int("group_sync_every", m.group_sync_every, 1, kMaxInt);
  table.get_enum("qk_norm", attention.qk_norm, {QkNorm::kNone, QkNorm::kHead, QkNorm::kFull});
  table.get_bool("norm_topk_prob", norm_topk_prob);
  table.get_bool("tie_word_embeddings", m.tie_word_embeddings);
  table.get_number("rope_theta", attention.rope_theta, 1, 1e12);
  table.get_number("rope_scaling_factor", attention.rope_factor, 1, 1e6);
  table.get_number("rms_norm_eps", m.rms_norm_eps, 1e-12, 1);
  m.max_position_embeddings = default_context;
  table.get_int("max_position_embeddings", m.max_position_embeddings, default_context, kMaxInt);
  const nlohmann::json blocks = table.get_json("layers");
  table.finish();
  experts.router = RouterConfig{.norm = norm_topk_prob ? RouterNorm::kSelected : RouterNorm::kNone};
  m.layers = uniform_layers(layers, attention, experts);
  if (!blocks.is_null()) {
    read_layers(blocks, layers, {attention, experts}, m);
    if (m.num_layers() != layers)
      fail("num_hidden_layers: expected {}, as there are in layers, got {}", m.num_layers(), layers);
  }
  validate(m);
}

// Which model a folder has.
std::string identity_of(const std::string& model_dir, const ModelConfig& config) {
  ThreadPool pool(1);
  Digest digest;
  digest.add(model_config_json(config));
  return fmt::format("weights {}, config {:016x}", model_identity(pool, TensorFolder(model_dir)), digest.value());
}

void read_folders(Table& table, TrainConfig& c, const std::string& source, const std::string& base) {
  table.get_folder("init_from", c.init_from, base);
  table.get_folder("distill_from", c.distill_from, base);
  if (!c.init_from.empty()) {
    c.model = load_model_config(c.init_from);
    c.identity["train.init_from"] = identity_of(c.init_from, c.model);
  }
  if (!c.distill_from.empty()) {
    c.identity["train.distill_from"] = identity_of(c.distill_from, load_model_config(c.distill_from));
    table.get_number("distill_weight", c.distill_weight, 0, 1);
  } else if (table.has("distill_weight")) {
    fail("{}: train.distill_weight: expected train.distill_from beside it, got none", source);
  }
}

// The model of the table or, without one, of the folder that the run begins with.
void read_model_table(const toml::table& file, const std::string& source, TrainConfig& c) {
  if (c.init_from.empty()) {
    try {
      return read_model(Table(file, source, "model", &c.identity), c.model, c.sequence_length);
    } catch (const Error& error) {
      if (std::string_view(error.what()).starts_with(source)) throw;
      fail("{}: model.{}", source, error.what());
    }
  }
  if (file.contains("model"))
    fail("{}: model: expected no such table beside train.init_from, whose folder says what the model is", source);
  if (c.sequence_length > c.model.max_position_embeddings)
    fail("{}: train.sequence_length: expected at most the context of the model in train.init_from, {}, got {}", source,
         c.model.max_position_embeddings, c.sequence_length);
}

void read_train(Table table, TrainConfig& c, const std::string& source, const std::string& base) {
  table.get_int("sequence_length", c.sequence_length, 2, 1 << 16, true);
  table.get_int("batch_sequences", c.batch_sequences, 1, 1 << 16, true);
  table.get_int("shards", c.shards, 1, 1 << 10);
  table.get_int("steps", c.steps, 1, kMaxInt, true);
  auto seed = static_cast<std::int64_t>(c.seed);
  table.get_integer("seed", seed, 0, std::numeric_limits<std::int64_t>::max());
  c.seed = static_cast<std::uint64_t>(seed);
  table.get_number("learning_rate", c.learning_rate, 0, 10);
  table.get_number("final_learning_rate", c.final_learning_rate, 0, 1);
  table.get_int("warmup_steps", c.warmup_steps, 0, c.steps);
  table.get_int("decay_steps", c.decay_steps, 0, c.steps);
  table.get_number("beta1", c.beta1, 0, 0.9999);
  table.get_number("beta2", c.beta2, 0, 0.999999);
  table.get_number("adam_eps", c.adam_eps, 1e-30, 1);
  table.get_number("weight_decay", c.weight_decay, 0, 10);
  table.get_number("gradient_clip", c.gradient_clip, 1e-6, 1e6);
  table.get_number("balance_loss", c.balance_loss, 0, 1e3);
  table.get_number("z_loss", c.z_loss, 0, 1e3);
  table.get_number("output_init_scale", c.init.output, 0, 1e3);
  table.get_number("embedding_init_scale", c.init.embedding, 0, 1e6);
  table.get_enum("precision", c.precision, {DType::kF32, DType::kBF16});
  // Checkpoints without this key are in f32 (checkpoint.cc), those of before it came among them.
  if (c.precision == DType::kF32) c.identity.erase(kPrecisionKey);
  read_folders(table, c, source, base);
  table.finish();
  if (c.batch_sequences % c.shards != 0)
    fail("{}: train.batch_sequences: expected a multiple of train.shards = {}, got {}", source, c.shards,
         c.batch_sequences);
  // Rows are counted in ints, so the rows of a shard times the experts of a token must fit into an int.
  constexpr std::int64_t kMaxBatchTokens = 1 << 22;
  if (static_cast<std::int64_t>(c.batch_sequences) * c.sequence_length > kMaxBatchTokens)
    fail("{}: train.batch_sequences * train.sequence_length: expected at most {}, got {}", source, kMaxBatchTokens,
         static_cast<std::int64_t>(c.batch_sequences) * c.sequence_length);
}

// The parser nests a table for each part of a dotted key, and destroys tables recursively, which could exhaust the
// stack. No key of ours has more than two parts.
void check_nesting(std::string_view text, const std::string& source) {
  constexpr int kMostDots = 8;
  int line = 1, dots = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"' || c == '\'') {
      // Strings of several lines have three quotes on each side. Only strings in double quotes have escapes.
      const std::string_view three = text.substr(at, 3),
                             quote = three == std::string(3, c) ? three : text.substr(at, 1);
      for (at += quote.size(); at < text.size() && text.substr(at, quote.size()) != quote; ++at) {
        line += text[at] == '\n';
        if (quote.size() == 1 && text[at] == '\n') break;  // the parser reports the error
        if (c == '"' && text[at] == '\\') ++at;
      }
      at += quote.size() - 1;
      while (quote.size() == 3 && at + 1 < text.size() && text[at + 1] == c) ++at;  // the string's own, at its end
    } else if (c == '#') {
      at = std::min(text.find('\n', at), text.size()) - 1;
    } else if (c == '.') {
      if (++dots > kMostDots)
        fail("{}: line {}: expected a key of at most {} parts, got a longer one", source, line, kMostDots + 1);
    } else if (c == '\n' || c == '=' || c == ',' || c == '[' || c == '{') {
      dots = 0;
      line += c == '\n';
    }
  }
}

}  // namespace

TrainConfig parse_train_config(std::string_view text, const std::string& source, const std::string& base) {
  check_nesting(text, source);
  toml::table file;
  try {
    file = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail("{}: line {}: {}", source, error.source().begin.line, error.description());
  }
  TrainConfig c;
  for (const auto& [key, node] : file)
    if (const std::string name(key.str()); name != "model" && name != "data" && name != "train" && name != "run")
      fail("{}: unknown table or key \"{}\"; expected [model], [data], [train], [run]", source, shorten(name));
  read_train(Table(file, source, "train", &c.identity), c, source, base);
  read_model_table(file, source, c);
  c.model.model_type = "foe";

  Table data(file, source, "data", nullptr);
  data.get_folder("tokens", c.tokens, base);
  data.get_folder("tokenizer", c.tokenizer, base);
  data.finish();

  Table run(file, source, "run", nullptr);
  run.get_string("dir", c.run_dir);
  run.get_int("log_every", c.log_every, 1, kMaxInt);
  run.get_int("valid_every", c.valid_every, 1, kMaxInt);
  run.get_int("checkpoint_every", c.checkpoint_every, 1, kMaxInt);
  run.get_int("valid_tokens", c.valid_tokens, 1, kMaxInt);
  run.get_enum("save_dtype", c.save_dtype, {DType::kBF16, DType::kF32});
  run.finish();
  return c;
}

TrainConfig load_train_config(const std::string& path, const std::string& base) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return parse_train_config(read_text_file(path, kMaxConfigBytes), path, base.empty() ? folder : base);
}

}  // namespace foe::train
