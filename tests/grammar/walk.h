// Token tables, masks and random outputs for the tests of grammars.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "grammar/grammar.h"
#include "text/golden_files.h"
#include "text/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// Returns a table with a token for each byte, whose id is the byte, then the given tokens, then a special one.
inline std::shared_ptr<const TokenTable> make_table(const std::vector<std::string>& more) {
  std::vector<std::string> alphabet(256);  // the names of the tokens of single bytes
  for (char32_t code = 0; code < 0x180; ++code) {
    std::string character;
    append_utf8(character, code);
    const auto byte = from_byte_level(character);
    if (byte) alphabet[static_cast<std::uint8_t>((*byte)[0])] = character;
  }
  nlohmann::json file = read_golden("gpt2.json"), vocab;
  for (std::size_t byte = 0; byte < 256; ++byte) vocab[alphabet[byte]] = byte;
  for (const std::string& token : more) {
    std::string name;
    for (const char c : token) name += alphabet[static_cast<std::uint8_t>(c)];
    vocab[name] = vocab.size();
  }
  const auto end = static_cast<int>(vocab.size());
  file["added_tokens"] = {{{"id", end}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}}};
  file["model"]["vocab"] = std::move(vocab);
  file["model"]["merges"] = nlohmann::json::array();
  return std::make_shared<const TokenTable>(Tokenizer::from_json(file.dump()), end + 1);
}

inline std::shared_ptr<const TokenTable> shipped_table() {
  const Tokenizer tokenizer = Tokenizer::load(FOE_SOURCE_DIR "/models/foe-8m/tokenizer.json");
  return std::make_shared<const TokenTable>(tokenizer, tokenizer.vocab_size());
}

inline std::shared_ptr<const Grammar> compile(const std::string& schema) {
  return compile_grammar({Constraint::Kind::kJsonSchema, schema});
}

inline std::vector<std::int32_t> allowed_tokens(const GrammarMatcher& matcher, const TokenTable& table) {
  std::vector<std::uint64_t> bits(table.mask_words());
  matcher.fill_mask(bits);
  std::vector<std::int32_t> result;
  for (std::size_t i = 0; i < bits.size() * 64; ++i) {
    if (bits[i / 64] >> (i % 64) & 1) result.push_back(static_cast<std::int32_t>(i));
  }
  return result;
}

// Returns an output of random allowed tokens. From some length on, tokens that close something are preferred. Returns
// "" if it does not end.
inline std::string random_output(const std::shared_ptr<const Grammar>& grammar,
                                 const std::shared_ptr<const TokenTable>& table, std::uint64_t seed) {
  constexpr int kFree = 40, kTokens = 2000;
  std::mt19937_64 rng(seed);
  const auto chance = [&](double p) { return std::generate_canonical<double, 53>(rng) < p; };
  GrammarMatcher matcher(grammar, table);
  std::string text;
  for (int i = 0; i < kTokens; ++i) {
    const std::vector<std::int32_t> allowed = allowed_tokens(matcher, *table);
    if (matcher.complete() && (allowed.empty() || chance(0.3))) return text;
    if (allowed.empty()) return "dead: " + text;
    std::int32_t token = allowed[rng() % allowed.size()];
    if (i > kFree) {
      // Prefers tokens that close something, and then a few random ones.
      const auto rank = [&](std::int32_t t) {
        const std::string_view bytes = table->bytes(t);
        return bytes == "\"" ? 3 : bytes == "]" || bytes == "}" ? 2 : bytes.size() == 1 ? 1 : 0;
      };
      for (const std::int32_t t : allowed) {
        if (rank(t) > rank(token) && chance(0.5)) token = t;
      }
    }
    text += table->bytes(token);
    matcher.accept(token);
  }
  return "";
}

}  // namespace foe
