// A constraint of any bytes is refused with an Error, or gives masks that accepting agrees with, never a dead end, and,
// of schemas, texts that are JSON where they are complete. A first byte of 'r', 'c' or 'g' says that a regular
// expression, texts, or a grammar of rules comes behind it; the bytes behind a NUL choose the tokens.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "grammar/grammar.h"

namespace {

using Kind = foe::Constraint::Kind;

void walk(const std::shared_ptr<const foe::Grammar>& grammar, Kind kind, std::string_view choices) {
  using foe::Tokenizer, foe::TokenTable;
  static const auto tokenizer = Tokenizer::load(FOE_SOURCE_DIR "/models/foe-8m/tokenizer.json");
  static const auto table = std::make_shared<const TokenTable>(tokenizer, tokenizer.vocab_size());
  foe::GrammarMatcher matcher(grammar, table);
  std::vector<std::uint64_t> bits(table->mask_words());
  std::string text;
  const std::size_t most = kind == Kind::kGrammar ? 20 : 200;  // masks of ambiguous rules take long
  for (std::size_t i = 0; i + 1 < choices.size() && i < most; i += 2) {
    matcher.fill_mask(bits);
    std::vector<std::int32_t> allowed;
    for (std::size_t token = 0; token < bits.size() * 64; ++token) {
      if (bits[token / 64] >> (token % 64) & 1) allowed.push_back(static_cast<std::int32_t>(token));
    }
    FOE_CHECK(!allowed.empty() || matcher.complete(), "a dead end behind {}", text);
    if (matcher.complete() && kind == Kind::kJsonSchema)
      FOE_CHECK(nlohmann::json::accept(text), "expected JSON, got {}", text);
    const auto choice = static_cast<std::uint8_t>(choices[i]) * 256u + static_cast<std::uint8_t>(choices[i + 1]);
    const auto other = static_cast<std::int32_t>(choice * 7919u % static_cast<unsigned>(tokenizer.vocab_size()));
    // A mask of a very ambiguous grammar of rules may lack tokens.
    if (kind != Kind::kGrammar && !std::binary_search(allowed.begin(), allowed.end(), other)) {
      foe::GrammarMatcher refused = matcher;
      refused.accept(other);
      FOE_CHECK(refused.dead(), "the mask refused what is allowed: {} and {}", text, table->bytes(other));
    }
    if (allowed.empty()) return;
    const std::int32_t token = allowed[choice % allowed.size()];
    text += table->bytes(token);
    matcher.accept(token);
    FOE_CHECK(!matcher.dead(), "the mask allowed what is refused: {}", text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t nul = input.find('\0');
  std::string_view rule = input.substr(0, nul);
  const char first = rule.empty() ? '\0' : rule[0];
  const Kind kind = first == 'r'   ? Kind::kRegex
                    : first == 'c' ? Kind::kChoice
                    : first == 'g' ? Kind::kGrammar
                                   : Kind::kJsonSchema;
  if (kind != Kind::kJsonSchema) rule.remove_prefix(1);
  try {
    const auto grammar = foe::compile_grammar({kind, std::string(rule)});
    walk(grammar, kind, nul == input.npos ? "0123456789abcdefghijklmnopqrst" : input.substr(nul + 1));
  } catch (const foe::Error&) {
  }
  return 0;
}
