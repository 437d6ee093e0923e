#include "tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include <fmt/format.h>

#include "base/error.h"
#include "base/sha256.h"
#include "text/utf8.h"
#include "tokenizer/gguf_pre_tokenizers.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";

constexpr int kNormalToken = 1, kUnknownToken = 2, kControlToken = 3, kUserToken = 4, kUnusedToken = 5, kByteToken = 6;

class GgufTokenizerReader {
 public:
  explicit GgufTokenizerReader(const GgufMetadata& metadata) : metadata_(metadata) {}

  TokenizerSpec read() {
    constexpr const char* kModel = "tokenizer.ggml.model";
    const auto model = metadata_.text(kModel);
    if (model != "gpt2" && model != "llama")
      fail("{}: {}: expected gpt2 or llama, got {}", metadata_.source(), kModel,
           model ? "'" + std::string(model->substr(0, 100)) + "'" : "none");
    spec_.byte_level = spec_.decoder.byte_level = model == "gpt2";
    read_tokens();
    if (spec_.byte_level) {
      read_byte_level();
    } else {
      read_sentencepiece_like();
    }
    read_digest();
    return std::move(spec_);
  }

 private:
  template <typename T>
  [[noreturn]] void refuse(const char* key, std::string_view expected, const T& got) const {
    fail("{}: {}: expected {}, got {}", metadata_.source(), key, expected, got);
  }

  // Numbers for each token; empty where there is no such key.
  std::vector<double> numbers_of_tokens(const char* key, std::size_t tokens) const {
    std::vector<double> numbers = metadata_.numbers(key).value_or(std::vector<double>());
    if (metadata_.has(key) && numbers.size() != tokens)
      refuse(key, fmt::format("{} numbers, as there are tokens", tokens), numbers.size());
    return numbers;
  }

  void check_name(std::string_view name, std::size_t id) const {
    const std::size_t most = spec_.byte_level ? kMaxTokenBytes : kMaxScoredTokenBytes;
    if (name.size() > most)
      refuse(kTokens, fmt::format("tokens of at most {} bytes", most), fmt::format("{} of id {}", name.size(), id));
    check_utf8(name, fmt::format("{}: {}: token {}", metadata_.source(), kTokens, id));
  }

  void read_tokens() {
    const auto names = metadata_.texts(kTokens);
    if (!names || names->empty()) refuse(kTokens, "an array of strings", "none");
    if (names->size() > INT32_MAX / 4) refuse(kTokens, "fewer tokens", names->size());
    const std::vector<double> types = numbers_of_tokens("tokenizer.ggml.token_type", names->size());
    const std::vector<double> scores = numbers_of_tokens("tokenizer.ggml.scores", names->size());
    if (!spec_.byte_level && scores.empty()) refuse("tokenizer.ggml.scores", "a score of each token", "none");
    std::unordered_set<std::string_view> words;
    for (std::size_t i = 0; i < names->size(); ++i) {
      check_name((*names)[i], i);
      const double type = types.empty() ? kNormalToken : types[i], score = scores.empty() ? 0 : scores[i];
      if (type < kNormalToken || type > kByteToken || type != std::floor(type))
        refuse("tokenizer.ggml.token_type", "types from 1 to 6", type);
      if (!std::isfinite(score)) refuse("tokenizer.ggml.scores", "finite scores", score);
      const bool word = add_token((*names)[i], static_cast<std::int32_t>(i), static_cast<int>(type), score);
      if (word && !words.insert((*names)[i]).second) refuse(kTokens, "each word once", (*names)[i]);
    }
  }

  // Returns whether it is a token that words consist of.
  bool add_token(std::string_view name, std::int32_t id, int type, double score) {
    const bool special = type == kControlToken || (type == kUnknownToken && !spec_.byte_level);
    if (special || type == kUserToken) {
      if (!name.empty()) spec_.added_tokens.push_back({.content = text_of(name), .id = id, .special = special});
      if (type == kUnknownToken) spec_.unknown_id = id;
      return false;
    }
    if (type == kUnusedToken || name.empty()) return false;
    bytes_ += type == kByteToken && named_byte(name).has_value();
    const bool word = type != kByteToken;
    spec_.vocab.push_back({std::string(name), id, score, word ? VocabEntry::Kind::kWord : VocabEntry::Kind::kNotText});
    return word;
  }

  // Older files have a token of spaces as SentencePiece spells it.
  std::string text_of(std::string_view name) const {
    std::string text(name);
    if (spec_.byte_level) return text;
    for (std::size_t at = 0; (at = text.find(kSpaceSymbol, at)) != std::string::npos; ++at)
      text.replace(at, kSpaceSymbol.size(), " ");
    return text;
  }

  void read_byte_level() {
    const GgufPreTokenizer& rules = gguf_pre_tokenizer(metadata_);
    spec_.ignore_merges = rules.ignore_merges;
    if (rules.nfc) spec_.normalizer.push_back(NormalForm::kNfc);
    if (rules.digits) spec_.pre_tokenizer.push_back(SplitStep{Regex(R"(\p{N})"), SplitBehavior::kIsolated, false});
    if (rules.pattern.empty()) {
      spec_.pre_tokenizer.push_back(gpt2_split());
    } else {
      spec_.pre_tokenizer.push_back(SplitStep{Regex(rules.pattern), SplitBehavior::kIsolated, false});
    }
    read_merges();
    add_affixes(rules.begins);
  }

  void read_merges() {
    constexpr const char* kMerges = "tokenizer.ggml.merges";
    const auto merges = metadata_.texts(kMerges);
    if (!merges) refuse(kMerges, "an array of pairs", "none");
    spec_.merges.emplace();
    for (const std::string_view pair : *merges) {
      const std::size_t space = pair.find(' ', 1);
      if (space == std::string_view::npos || space + 1 == pair.size() || pair.size() > 2 * kMaxTokenBytes)
        refuse(kMerges, "two tokens with a space between them", "'" + std::string(pair.substr(0, 100)) + "'");
      spec_.merges->emplace_back(pair.substr(0, space), pair.substr(space + 1));
    }
  }

  // As Hugging Face's tokenizers of such vocabularies: each piece of a text between added tokens begins with a space,
  // unless add_space_prefix is false.
  void read_sentencepiece_like() {
    const bool prefix = metadata_.flag("tokenizer.ggml.add_space_prefix").value_or(true);
    if (metadata_.flag("tokenizer.ggml.remove_extra_whitespaces").value_or(false))
      refuse("tokenizer.ggml.remove_extra_whitespaces", "false", true);
    const std::string space(kSpaceSymbol);
    if (prefix) spec_.normalizer.push_back(PrependText{space});
    spec_.normalizer.push_back(ReplaceText{" ", space});
    spec_.decoder.steps.push_back(ReplaceText{space, " "});
    if (prefix) spec_.decoder.start = DropFirst{' ', 1};
    if (bytes_ != 0 && bytes_ != 256) refuse(kTokens, "256 tokens of bytes, or none", bytes_);
    spec_.byte_fallback = spec_.decoder.byte_fallback = bytes_ == 256;
    spec_.fuse_unknown = true;
    add_affixes(true);
  }

  std::optional<std::int32_t> id(const char* key) const {
    const auto id = metadata_.integer(key);
    // llama.cpp writes the largest number, or -1, where there is none.
    if (!id || *id < 0 || *id == UINT32_MAX) return std::nullopt;
    if (*id >= static_cast<std::int64_t>(metadata_.count(kTokens)))
      refuse(key, fmt::format("an id of the {} tokens", metadata_.count(kTokens)), *id);
    return static_cast<std::int32_t>(*id);
  }

  void add_affixes(bool begins) {
    const auto bos = id("tokenizer.ggml.bos_token_id"), eos = id("tokenizer.ggml.eos_token_id");
    if (bos && metadata_.flag("tokenizer.ggml.add_bos_token").value_or(begins)) spec_.prefix_ids.push_back(*bos);
    if (eos && metadata_.flag("tokenizer.ggml.add_eos_token").value_or(false)) spec_.suffix_ids.push_back(*eos);
    spec_.end_id = eos;
  }

  void read_digest() {
    Sha256 digest;
    for (const auto& [key, value] : metadata_.values()) {
      if (!key.starts_with("tokenizer.ggml.")) continue;
      digest.add(key);
      digest.add(value.bytes);
    }
    spec_.digest = digest.hex();
  }

  const GgufMetadata& metadata_;
  TokenizerSpec spec_;
  int bytes_ = 0;  // how many tokens stand for a byte
};

}  // namespace

TokenizerSpec read_gguf_tokenizer(const GgufMetadata& metadata) {
  return GgufTokenizerReader(metadata).read();
}

TokenizerSpec load_gguf_tokenizer(const std::string& path) {
  const TensorFile file(gguf_shards(path).front());
  if (!file.gguf()) fail("{}: expected a GGUF file, got another one", path);
  return read_gguf_tokenizer(*file.gguf());
}

}  // namespace foe
