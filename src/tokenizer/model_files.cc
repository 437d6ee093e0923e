#include "tokenizer/model_files.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/sha256.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "text/json_fields.h"
#include "text/tokenizer_config.h"
#include "tokenizer/gguf_tokenizer.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tiktoken_file.h"
#include "tokenizer/tokenizer_json.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigTokens = std::size_t{1} << 20;

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Runs `read`, and puts the file's name in front of its errors.
template <typename Read>
auto naming_file(const std::string& path, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
}

// The tokens that the config has by their ids, and those that it has by name, which are special.
struct ConfigTokens {
  std::map<std::int32_t, AddedToken> by_id;
  std::vector<AddedToken> named;

  bool names(const std::string& content) const {
    return std::any_of(named.begin(), named.end(), [&](const AddedToken& token) { return token.content == content; });
  }
};

AddedToken special_token(const JsonField& field) {
  AddedToken token;
  if (field.value.is_object()) {
    token = parse_added_token(field);
  } else {
    token.content = field.string();
    token.normalized = true;
    check_token(token.content, field.path);
  }
  token.special = true;
  return token;
}

void read_named(const JsonField& config, ConfigTokens& tokens) {
  for (const char* name : kSpecialTokenNames)
    if (const JsonField field = config[name]; !field.null()) tokens.named.push_back(special_token(field));
  for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
    const JsonField field = config[name];
    if (field.value.is_object()) {
      for (const auto& [key, value] : field.object())
        tokens.named.push_back(special_token({value, field.path + "." + key}));
    } else if (!field.null()) {
      for (std::size_t i = 0; i < field.array().size(); ++i) tokens.named.push_back(special_token(field[i]));
    }
  }
}

ConfigTokens read_config_tokens(const json& config, const std::string& model_dir) {
  ConfigTokens tokens;
  const JsonField root{config, ""};
  read_named(root, tokens);
  const JsonField decoder = root["added_tokens_decoder"];
  if (!decoder.null()) {
    for (const auto& [key, value] : decoder.object()) {
      std::int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0)
        fail("{}: expected ids as keys, got '{}'", decoder.path, key.substr(0, 100));
      tokens.by_id.emplace(id, parse_added_token({value, decoder.path + "." + key}));
    }
  } else if (const std::string path = model_dir + "/added_tokens.json"; exists(path)) {
    const json added = parse_strict_json(read_text_file(path, kMaxTokenizerFileBytes), path);
    for (const auto& [content, id] : JsonField{added, path}.object()) {
      check_token(content, path);
      const bool special = tokens.names(content);
      tokens.by_id.emplace(token_id({id, path + ": " + content.substr(0, 100)}, kMaxConfigTokens),
                           AddedToken{.content = content, .special = special, .normalized = !special});
    }
  }
  return tokens;
}

// Adds the config's tokens as transformers does to a tokenizer.json: their ids are the library's.
void add_tokens(const ConfigTokens& tokens, TokenizerSpec& spec) {
  AddedTokenList list(spec.vocab, std::move(spec.added_tokens));
  for (const auto& [said, given] : tokens.by_id) {
    AddedToken token = given;
    token.special = token.special || tokens.names(token.content);
    const std::int32_t id = list.add(token);
    if (id != said)
      spec.notes.push_back(fmt::format(
          "tokenizer_config.json: '{}' has the id {} in the tokenizer, and {} in the config", token.content, id, said));
  }
  for (const AddedToken& token : tokens.named)
    if (!list.contains(token.content)) list.add(token);
  spec.added_tokens = list.take();
}

// Puts tokens at the places that the config gives them in a vocabulary that is not a tokenizer.json.
class TokenPlacer {
 public:
  explicit TokenPlacer(TokenizerSpec& spec) : spec_(spec) {
    for (std::size_t i = 0; i < spec.vocab.size(); ++i) {
      entry_of_id_.emplace(spec.vocab[i].id, i);
      next_id_ = std::max(next_id_, spec.vocab[i].id + 1);
      if (spec.vocab[i].kind != VocabEntry::Kind::kNotText) id_of_name_.emplace(spec.vocab[i].name, spec.vocab[i].id);
    }
    for (AddedToken& token : spec.added_tokens) put(std::move(token));
    spec.added_tokens.clear();
  }

  // A token of the vocabulary that has this id gets the new name.
  void put(AddedToken token) {
    if (const std::int64_t most = max_token_id(spec_.vocab.size() + by_id_.size()); token.id > most)
      fail("added_tokens_decoder: expected ids up to {} beside {} tokens, got {} of '{}'", most, spec_.vocab.size(),
           token.id, token.content);
    const auto known = id_of_name_.find(token.content);
    if (known != id_of_name_.end() && known->second != token.id)
      fail("added_tokens_decoder: '{}' has the id {}, but also {}", token.content, token.id, known->second);
    id_of_name_[token.content] = token.id;
    next_id_ = std::max(next_id_, token.id + 1);
    if (const auto entry = entry_of_id_.find(token.id); entry != entry_of_id_.end())
      rename(entry->second, token.content);
    token.normalized = false;
    by_id_.insert_or_assign(token.id, std::move(token));
  }

  // A token without a place is in the vocabulary, or becomes the next one.
  void put_named(AddedToken token, bool may_be_new) {
    const auto known = id_of_name_.find(token.content);
    if (known == id_of_name_.end() && !may_be_new)
      fail("expected an id of the special token '{}' in added_tokens_decoder, got none", token.content);
    token.id = known == id_of_name_.end() ? next_id_ : known->second;
    put(std::move(token));
  }

  void finish() {
    for (auto& [id, token] : by_id_) spec_.added_tokens.push_back(std::move(token));
  }

 private:
  void rename(std::size_t i, const std::string& name) {
    VocabEntry& entry = spec_.vocab[i];
    if (entry.name == name) return;
    if (spec_.byte_level) fail("added_tokens_decoder: '{}' has the id {}, which is that of bytes", name, entry.id);
    id_of_name_.erase(entry.name);
    entry.name = name;
    entry.kind = VocabEntry::Kind::kNotText;
  }

  TokenizerSpec& spec_;
  std::unordered_map<std::int32_t, std::size_t> entry_of_id_;
  std::unordered_map<std::string, std::int32_t> id_of_name_;
  std::map<std::int32_t, AddedToken> by_id_;
  std::int32_t next_id_ = 0;
};

void place_tokens(const ConfigTokens& tokens, bool may_be_new, TokenizerSpec& spec) {
  TokenPlacer placer(spec);
  std::set<std::string> placed;
  for (const auto& [id, given] : tokens.by_id) {
    placed.insert(given.content);
    AddedToken token = given;
    token.id = id;
    token.special = token.special || tokens.names(token.content);
    placer.put(std::move(token));
  }
  for (const AddedToken& token : tokens.named)
    if (!placed.contains(token.content)) placer.put_named(token, may_be_new);
  placer.finish();
}

std::optional<std::int32_t> id_of(const TokenizerSpec& spec, const json& config, const char* name) {
  const auto text = special_token_text(config, name);
  for (const AddedToken& token : spec.added_tokens)
    if (token.content == text) return token.id;
  return std::nullopt;
}

// A vocabulary says nothing of what is put around a text. transformers' default is the beginning of a text where
// SentencePiece has one.
void add_affixes(const json& config, bool begins, TokenizerSpec& spec) {
  const JsonField root{config, ""};
  const auto bos = id_of(spec, config, "bos_token"), eos = id_of(spec, config, "eos_token");
  if (bos && root["add_bos_token"].boolean_or(begins)) spec.prefix_ids.push_back(*bos);
  if (eos && root["add_eos_token"].boolean_or(false)) spec.suffix_ids.push_back(*eos);
}

// Returns the names that the config gives to the first and the last token, or else the vocabulary's.
json with_names(json config, const TokenizerSpec& spec, std::optional<std::int32_t> bos) {
  const auto set = [&](const char* name, std::optional<std::int32_t> id) {
    if (!config.contains(name) && id) config[name] = spec.vocab[static_cast<std::size_t>(*id)].name;
  };
  set("bos_token", bos);
  set("eos_token", spec.end_id);
  return config;
}

TokenizerSpec read_sentencepiece(std::string_view bytes, json config, const std::string& model_dir) {
  SentencePieceModel model = parse_sentencepiece_model(bytes);
  TokenizerSpec& spec = model.spec;
  config = with_names(std::move(config), spec, model.begin_id);
  // The name of this key is transformers': without it, a space is put before each piece of a text between special
  // tokens.
  model.rules().prefix_inside = JsonField{config, ""}["legacy"].boolean_or(true);
  place_tokens(read_config_tokens(config, model_dir), /*may_be_new=*/true, spec);
  add_affixes(config, /*begins=*/true, spec);
  spec.end_id = id_of(spec, config, "eos_token");
  return spec;
}

TokenizerSpec read_tiktoken(std::string_view text, const json& config, const std::string& model_dir) {
  const JsonField root{config, ""}, pattern = root["pat_str"], type = root["tokenizer_class"];
  TiktokenRules rules = tiktoken_rules(type.null() ? "" : type.string());
  if (!pattern.null()) rules.pattern = pattern.string();
  if (rules.pattern.empty())
    fail(
        "expected a tokenizer_class in tokenizer_config.json whose regular expression is known (TikTokenTokenizer, "
        "HYTokenizer), got {}; add the expression as \"pat_str\"",
        type.null() ? "none" : "'" + type.string().substr(0, 100) + "'");
  TokenizerSpec spec = parse_tiktoken_file(text, rules);
  const ConfigTokens tokens = read_config_tokens(config, model_dir);
  if (tokens.by_id.empty())
    fail("expected the special tokens in added_tokens_decoder of tokenizer_config.json, got none");
  place_tokens(tokens, /*may_be_new=*/false, spec);
  add_affixes(config, /*begins=*/false, spec);
  spec.end_id = id_of(spec, config, "eos_token");
  return spec;
}

}  // namespace

std::string find_tokenizer_file(const std::string& model_dir) {
  if (is_gguf_path(model_dir)) return model_dir;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tiktoken.model"})
    if (const std::string path = model_dir + "/" + name; exists(path)) return path;
  std::error_code error;
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir, error))
    if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  return found.size() == 1 ? found[0] : "";
}

namespace {

TokenizerSpec read_files(const std::string& path, const std::string& text, const std::string& model_dir) {
  const json config = load_tokenizer_config(model_dir);
  if (!path.ends_with(".json")) {
    return naming_file(path, [&] {
      return is_tiktoken_file(text) ? read_tiktoken(text, config, model_dir)
                                    : read_sentencepiece(text, config, model_dir);
    });
  }
  TokenizerSpec spec = naming_file(path, [&] { return parse_tokenizer_json(text); });
  naming_file(model_dir + "/tokenizer_config.json", [&] {
    add_tokens(read_config_tokens(config, model_dir), spec);
    spec.end_id = id_of(spec, config, "eos_token");
  });
  return spec;
}

}  // namespace

TokenizerSpec load_tokenizer_spec(const std::string& model_dir) {
  if (is_gguf_path(model_dir)) return load_gguf_tokenizer(model_dir);
  const std::string path = find_tokenizer_file(model_dir);
  if (path.empty())
    fail("{}: expected tokenizer.json, tokenizer.model, tiktoken.model or one *.tiktoken, got none of them", model_dir);
  const std::string text = read_text_file(path, kMaxTokenizerFileBytes);
  TokenizerSpec spec = read_files(path, text, model_dir);
  Sha256 digest;
  digest.add(text);
  for (const AddedToken& token : spec.added_tokens)
    digest.add(fmt::format("{} {} {}\n", token.id, token.special, token.content));
  spec.digest = digest.hex();
  return spec;
}

}  // namespace foe
