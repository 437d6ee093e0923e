#include "tokenizer/gguf_pre_tokenizers.h"

#include <string>

#include "base/error.h"

namespace foe {
namespace {

// Contractions, words with the character before them, digits in threes, other characters, line ends, spaces.
constexpr std::string_view kDigitsInThrees =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same with single digits.
constexpr std::string_view kSingleDigits =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words end before a capital letter.
constexpr std::string_view kCased =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr GgufPreTokenizer kPreTokenizers[] = {
    {.name = "gpt-2", .pattern = {}},
    {.name = "olmo", .pattern = {}, .nfc = true},
    {.name = "smollm", .pattern = {}, .digits = true},
    {.name = "refact", .pattern = {}, .digits = true},
    {.name = "starcoder", .pattern = {}, .digits = true},
    {.name = "llama-bpe", .pattern = kDigitsInThrees, .ignore_merges = true, .begins = true},
    {.name = "llama3", .pattern = kDigitsInThrees, .ignore_merges = true, .begins = true},
    {.name = "dbrx", .pattern = kDigitsInThrees},
    {.name = "smaug-bpe", .pattern = kDigitsInThrees},
    {.name = "glm4", .pattern = kDigitsInThrees},
    {.name = "chatglm-bpe", .pattern = kDigitsInThrees},
    {.name = "minimax-m2", .pattern = kDigitsInThrees},
    {.name = "qwen2", .pattern = kSingleDigits, .nfc = true},
    {.name = "hunyuan", .pattern = kSingleDigits, .nfc = true},
    {.name = "gpt-4o", .pattern = kCased, .ignore_merges = true},
};

}  // namespace

const GgufPreTokenizer& gguf_pre_tokenizer(const GgufMetadata& metadata) {
  constexpr const char* kPre = "tokenizer.ggml.pre";
  const auto name = metadata.text(kPre);
  std::string known;
  for (const GgufPreTokenizer& rules : kPreTokenizers) {
    if (rules.name == name) return rules;
    known.append(known.empty() ? "" : ", ").append(rules.name);
  }
  fail("{}: {}: expected a pre-tokenizer that foe knows ({}), got {}: use the model's folder with its tokenizer.json",
       metadata.source(), kPre, known, name ? "'" + std::string(name->substr(0, 100)) + "'" : "none");
}

}  // namespace foe
