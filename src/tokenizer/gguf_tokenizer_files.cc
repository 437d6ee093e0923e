#include "tokenizer/gguf_tokenizer_files.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizer/gguf_pre_tokenizers.h"
#include "tokenizer/gguf_tokenizer.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tokenizer.h"
#include "weights/gguf/gguf_chat.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::string_view kGpt2Regex = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

json split_json(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json pre_tokenizer_json(const GgufPreTokenizer& rules) {
  json steps = json::array();
  if (rules.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  steps.push_back(split_json(rules.pattern.empty() ? kGpt2Regex : rules.pattern));
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// What is put around a text.
json post_processor_json(const TokenizerSpec& spec, const std::vector<std::string_view>& names) {
  json single = json::array(), tokens = json::object();
  const auto add = [&](std::int32_t id) {
    const std::string_view name = names[static_cast<std::size_t>(id)];
    single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
    tokens[std::string(name)] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  for (const std::int32_t id : spec.prefix_ids) add(id);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  for (const std::int32_t id : spec.suffix_ids) add(id);
  if (tokens.empty()) return nullptr;
  const json pair = {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}};
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

// Added tokens are in the vocabulary, too, since the library gives other ones the next ids.
std::string byte_level_json(const GgufMetadata& metadata, const TokenizerSpec& spec) {
  const GgufPreTokenizer& rules = gguf_pre_tokenizer(metadata);
  json vocab = json::object(), added = json::array(), merges = json::array();
  for (const VocabEntry& entry : spec.vocab) vocab[entry.name] = entry.id;
  for (const AddedToken& token : spec.added_tokens) {
    vocab[token.content] = token.id;
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", token.special}});
  }
  for (const auto& [left, right] : *spec.merges) merges.push_back(json::array({left, right}));
  const json model = {{"type", "BPE"},
                      {"vocab", std::move(vocab)},
                      {"merges", std::move(merges)},
                      {"ignore_merges", rules.ignore_merges}};
  const json nfc = rules.nfc ? json{{"type", "NFC"}} : json();
  return json{{"version", "1.0"},
              {"added_tokens", added},
              {"normalizer", nfc},
              {"pre_tokenizer", pre_tokenizer_json(rules)},
              {"post_processor", post_processor_json(spec, *metadata.texts("tokenizer.ggml.tokens"))},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", model}}
      .dump();
}

// --- tokenizer.model, a message of Protocol Buffers

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string number_field(unsigned number, std::uint64_t value) {
  return varint(number << 3) + varint(value);
}

std::string bytes_field(unsigned number, std::string_view bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}

std::string float_field(unsigned number, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  std::string bytes = varint(number << 3 | 5);
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(bits >> 8 * i & 0xff);
  return bytes;
}

std::string sentencepiece_model(const GgufMetadata& metadata) {
  const auto names = *metadata.texts("tokenizer.ggml.tokens");
  const auto scores = *metadata.numbers("tokenizer.ggml.scores");
  const auto types = metadata.numbers("tokenizer.ggml.token_type").value_or(std::vector<double>(names.size(), 1));
  std::string model;
  bool bytes = false;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const int type = static_cast<int>(types[i]);
    bytes = bytes || type == 6;
    model += bytes_field(1, bytes_field(1, names[i]) + float_field(2, static_cast<float>(scores[i])) +
                                number_field(3, static_cast<std::uint64_t>(type)));
  }
  std::string trainer = number_field(3, 2) + number_field(35, bytes);  // BPE
  const auto id = [&](unsigned number, const char* key) {
    if (const auto value = metadata.integer(key)) trainer += number_field(number, static_cast<std::uint64_t>(*value));
  };
  id(41, "tokenizer.ggml.bos_token_id");
  id(42, "tokenizer.ggml.eos_token_id");
  const bool prefix = metadata.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  const std::string normalizer = number_field(3, prefix) + number_field(4, false) + number_field(5, true);
  return model + bytes_field(2, trainer) + bytes_field(3, normalizer);
}

}  // namespace

std::map<std::string, std::string> gguf_tokenizer_files(const std::string& path) {
  const TensorFile file(gguf_shards(path).front());
  if (!file.gguf()) fail("{}: expected a GGUF file, got another one", path);
  const GgufMetadata& metadata = *file.gguf();
  const TokenizerSpec spec = read_gguf_tokenizer(metadata);
  std::map<std::string, std::string> files;
  if (spec.byte_level) {
    files["tokenizer.json"] = byte_level_json(metadata, spec);
    Tokenizer::from_json(files["tokenizer.json"]);
  } else {
    files["tokenizer.model"] = sentencepiece_model(metadata);
    parse_sentencepiece_model(files["tokenizer.model"]);
  }
  json config = gguf_tokenizer_config(path);
  config["add_bos_token"] = !spec.prefix_ids.empty();
  config["add_eos_token"] = !spec.suffix_ids.empty();
  files["tokenizer_config.json"] = config.dump(2) + "\n";
  return files;
}

}  // namespace foe
