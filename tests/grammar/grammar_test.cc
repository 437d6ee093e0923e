// Masks, exactly: against all texts of schemas that have few, and against accepting each token of a real vocabulary.
#include "grammar/grammar.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/texts.h"
#include "grammar/walk.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

using nlohmann::ordered_json;
using Texts = std::set<std::string>;

Texts join(const Texts& left, const std::string& between, const Texts& right) {
  Texts result;
  for (const std::string& a : left) {
    for (const std::string& b : right) result.insert(a + between + b);
  }
  return result;
}

// All texts without whitespace that a schema allows, for a few keywords only, as their definitions read.
struct AllTexts {
  const ordered_json& root;

  Texts of(const ordered_json& s) const {
    if (s.contains("$ref")) return of(root.at(ordered_json::json_pointer(s["$ref"].get<std::string>().substr(1))));
    if (s.contains("anyOf")) {
      Texts result;
      for (const auto& alternative : s["anyOf"]) result.merge(of(alternative));
      return result;
    }
    if (s.contains("enum")) {
      Texts result;
      for (const auto& value : s["enum"]) result.insert(value.dump());
      return result;
    }
    if (s["type"] == "integer") {
      Texts result;
      for (int i = s["minimum"]; i <= s["maximum"]; ++i) result.insert(std::to_string(i));
      return result;
    }
    if (s["type"] == "boolean") return {"true", "false"};
    return s["type"] == "array" ? arrays(s) : objects(s);
  }

  Texts arrays(const ordered_json& s) const {
    Texts result, now = {"["};
    for (std::size_t n = 0;; ++n) {
      if (n >= s.value("minItems", 0u)) result.merge(join(now, "", {"]"}));
      const ordered_json prefix = s.value("prefixItems", ordered_json::array());
      if (n == s.value("maxItems", 100u) || (n >= prefix.size() && s.value("items", ordered_json()) == false)) break;
      now = join(now, n > 0 ? "," : "", of(n < prefix.size() ? prefix[n] : s["items"]));
    }
    return result;
  }

  Texts objects(const ordered_json& s) const {
    const ordered_json required = s.value("required", ordered_json::array());
    std::vector<std::pair<Texts, std::size_t>> now = {{{"{"}, 0}};  // with the number of properties
    for (const auto& [name, schema] : s["properties"].items()) {
      const std::size_t size = now.size();
      for (std::size_t i = 0; i < size; ++i) {
        const auto [texts, count] = now[i];
        const std::string key = (count > 0 ? "," : "") + ordered_json(name).dump() + ":";
        now.emplace_back(join(texts, key, of(schema)), count + 1);
      }
      if (std::find(required.begin(), required.end(), name) != required.end())
        now.erase(now.begin(), now.begin() + static_cast<std::ptrdiff_t>(size));
    }
    Texts result;
    for (auto& [texts, count] : now) {
      if (count >= s.value("minProperties", 0u) && count <= s.value("maxProperties", 100u)) {
        result.merge(join(texts, "", {"}"}));
      }
    }
    return result;
  }
};

Texts prefixes(const Texts& texts) {
  Texts result;
  for (const std::string& text : texts) {
    for (std::size_t n = 0; n <= text.size(); ++n) result.insert(text.substr(0, n));
  }
  return result;
}

// Every text that the tokens can make is one of `texts`, with the right mask at each place.
void expect_exactly(const Texts& texts, const std::shared_ptr<const Grammar>& grammar) {
  const auto table = make_table({"{\"",
                                 "\":",
                                 "\",",
                                 "\"}",
                                 "},",
                                 "]}",
                                 "[[",
                                 "],[",
                                 "true",
                                 "false,",
                                 "tru",
                                 "1,",
                                 "12",
                                 "-1",
                                 "null]",
                                 "\"a",
                                 "\"a\":1,\"b\":",
                                 "ab\"",
                                 "a\":[",
                                 ",\"",
                                 "0]",
                                 "\":{\"",
                                 "}}",
                                 "{}",
                                 "[]",
                                 "[],",
                                 "1.5",
                                 "e}",
                                 "e,\"",
                                 "11]",
                                 "b\":",
                                 "c\":t"});
  const Texts begun = prefixes(texts);
  Texts seen = {""};
  std::vector<std::pair<std::string, GrammarMatcher>> open = {{"", GrammarMatcher(grammar, table)}};
  std::size_t whole = 0;
  while (!open.empty()) {
    const auto [text, matcher] = std::move(open.back());
    open.pop_back();
    EXPECT_EQ(matcher.complete(), texts.contains(text)) << text;
    whole += matcher.complete();
    std::vector<std::uint64_t> bits(table->mask_words());
    matcher.fill_mask(bits);
    for (std::int32_t token = 0; token < static_cast<std::int32_t>(bits.size() * 64); ++token) {
      const std::string_view bytes = table->bytes(token);
      if (bytes.find_first_of(" \n\t") != bytes.npos) continue;  // `texts` has no whitespace
      const std::string next = text + std::string(bytes);
      const bool allowed = bits[static_cast<std::size_t>(token) / 64] >> (token % 64) & 1;
      ASSERT_EQ(allowed, !bytes.empty() && begun.contains(next)) << text << " and " << bytes;
      if (!allowed || !seen.insert(next).second) continue;
      GrammarMatcher after = matcher;
      after.accept(token);
      ASSERT_FALSE(after.dead()) << next;
      open.emplace_back(next, std::move(after));
    }
  }
  EXPECT_EQ(whole, texts.size());
}

TEST(Grammar, MasksAreExactForSchemasOfFewTexts) {
  for (
      const char* text : {
          R"({"enum":[1,12,"a","ab",null,true,[1,{"a":[]}],-1.5]})",
          R"({"type":"integer","minimum":-12,"maximum":112})",
          R"({"type":"integer","minimum":7,"maximum":7})",
          R"({"anyOf":[{"type":"integer","minimum":1,"maximum":12},{"enum":[1,1.5,"1"]},{"type":"boolean"}]})",
          R"({"type":"array","items":{"type":"integer","minimum":9,"maximum":12},"maxItems":3})",
          R"({"type":"array","prefixItems":[{"enum":["a"]},{"type":"boolean"}],"items":{"enum":[1,12]},"minItems":1,
               "maxItems":4})",
          R"({"type":"array","prefixItems":[{"enum":["a"]},{"type":"boolean"}],"items":false})",
          R"({"type":"object","properties":{"a":{"enum":[1,12]},"b":{"type":"boolean"},"ab":{"enum":["a"]},"c":{"enum":[1]}},
               "required":["b"],"additionalProperties":false})",
          R"({"type":"object","properties":{"a":{"enum":[1]},"b":{"type":"boolean"},"ab":{"enum":["a"]},"c":{"enum":[1]}},
               "required":["c"],"additionalProperties":false,"minProperties":2,"maxProperties":3})",
          R"({"type":"object","properties":{"a":{"enum":[1]},"b":{"enum":[1]},"c":{"enum":[1]},"d":{"enum":[1]}},
               "additionalProperties":false,"minProperties":3})",
          R"({"type":"object","properties":{"a\"\\/\nü":{"enum":["\u0001\u007fü\ud83d\ude00"]}},"additionalProperties":false})",
          R"({"anyOf":[
               {"type":"object","properties":{"a":{"enum":[1]},"b":{"enum":[1]}},"required":["a"],"additionalProperties":false},
               {"type":"object","properties":{"a":{"enum":[12]},"c":{"enum":[true]}},"required":["a"],"additionalProperties":false},
               {"type":"array","items":{"type":"object","properties":{},"additionalProperties":false},"maxItems":2},
               {"type":"array","items":{"enum":[[],[[]]]},"maxItems":2}]})",
          R"({"$ref":"#/$defs/x","$defs":{"x":{"type":"array","items":{"$ref":"#/$defs/y"},"maxItems":2},
               "y":{"anyOf":[{"enum":[1]},{"type":"array","items":{"enum":[1,12]},"maxItems":1}]}}})",
      }) {
    SCOPED_TRACE(text);
    const ordered_json schema = ordered_json::parse(text);
    expect_exactly(AllTexts{schema}.of(schema), compile(text));
  }
}

// The mask comes from walks over all tokens at once, and from what is remembered of them.
void expect_mask_is_what_is_accepted(const GrammarMatcher& matcher, const TokenTable& table, const std::string& text) {
  const auto allowed = allowed_tokens(matcher, table);
  for (std::int32_t token = 0; token < static_cast<std::int32_t>(table.mask_words() * 64); ++token) {
    GrammarMatcher after = matcher;
    after.accept(token);
    const bool expected = std::binary_search(allowed.begin(), allowed.end(), token);
    ASSERT_EQ(!after.dead(), expected) << text << " and " << table.bytes(token);
  }
}

TEST(Grammar, MasksAreWhatIsAcceptedOfARealVocabulary) {
  const auto table = shipped_table();
  for (
      const auto& [schema, begin] : std::vector<std::pair<const char*, std::vector<std::string>>>{
          {"true",
           {"", "{", "{\"", "{\"the", "{\"a\":1,\"", "[1", "[-", "[0.5", "[\"\\", "[\"\\ud83d", "[\"\xf0\x9f", "[[[",
            "{\"a\": [\"b\", ", "\"", "12", "[1 "}},
          {R"({"type":"string","minLength":3,"maxLength":9})",
           {"\"", "\"a", "\"the c", "\"the cats ", "\"\xf0\x9f", "\"\\u00"}},
          {R"({"type":"string","pattern":"^[a-z]{2,5} ?(the|\\d+\")$"})",
           {"", "\"", "\"ab", "\"abc ", "\"abc 1", "\"abc 1\\"}},
          {R"({"properties":{"the":{"type":"number"},"them":{"enum":["the"]}},"additionalProperties":{"type":"integer"}})",
           {"{", "{\"", "{\"the", "{\"the\"", "{\"th\": 1, \"", "{\"th\": 1, \"th", "{\"the\": -1.5",
            "{\"the\":1,\"t"}},
          {R"({"type":"array","items":{"type":"number","minimum":-0.5,"exclusiveMaximum":120}})",
           {"[", "[1", "[-0", "[119."}},
      }) {
    for (const std::string& text : begin) {
      GrammarMatcher matcher(compile(schema), table);
      for (const char byte : text) {
        for (std::int32_t token = 0; token < 300; ++token) {
          if (table->bytes(token) == std::string_view(&byte, 1)) matcher.accept(token);
        }
      }
      ASSERT_FALSE(matcher.dead()) << schema << text;
      expect_mask_is_what_is_accepted(matcher, *table, text);
    }
  }
}

TEST(Grammar, ReadsJsonAsItsDefinitionDoes) {
  expect_texts("{}",
               {"null", "true", "0", "-0", "12.50e-3", "1E+9", "\"\"", R"("\"\\\/\b\f\n\r\t\u00e9\uD83d\uDe00")",
                "\"\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "[]", "{}", "[[], {}]",
                R"({"":"","a":{"a":1},"b":[1,2]})", "{\n  \"a\": [\n    1, 2\n  ]\n}"},
               {"",
                "nul",
                "nulll",
                "01",
                "-",
                "1.",
                ".5",
                "1e",
                "+1",
                "1e1000",
                "NaN",
                "\"",
                "\"\n\"",
                R"("\x")",
                R"("\u12")",
                R"("\ud83d")",
                R"("\ud83d\n")",
                R"("\ude00")",
                "\"\xc0\x80\"",
                "\"\xed\xa0\x80\"",
                "\"\xff\"",
                "\"\xf4\x90\x80\x80\"",
                "\"\xe2\x82\"",
                "[1,]",
                "[,1]",
                "{,}",
                R"({"a"})",
                R"({"a":1,})",
                R"({"a":1,"a":2})",
                R"({"a":1,"\u0061":2})",
                R"({a:1})",
                "[1 2]",
                "1 ",
                " 1",
                "\n1",
                "[1] ",
                "{\"a\" :1}",
                "[\r\n1]",
                std::string("\"\0\"", 3),
                "[\n\n1]"});
  const std::string deep(64, '['), close(64, ']');
  expect_texts("{}", {deep + close}, {"[" + deep + close + "]"});
  EXPECT_TRUE(after("{}", deep + "[").dead());
  const GrammarMatcher object(compile_grammar({Constraint::Kind::kJsonObject, ""}), make_table({}));
  EXPECT_EQ(allowed_tokens(object, *make_table({})), std::vector<std::int32_t>{'{'});
}

TEST(Grammar, NeverBlanksForEver) {
  EXPECT_FALSE(after("{}", "[\n    ").dead());
  EXPECT_TRUE(after("{}", "[\n     ").dead());
  EXPECT_FALSE(after("{}", "[\n[\n\t\t\t\t\t\t\t\t").dead());
  EXPECT_TRUE(after("{}", "[\n[\n\t\t\t\t\t\t\t\t\t").dead());
  EXPECT_FALSE(after("{}", "{\"a\": ").dead());
  EXPECT_TRUE(after("{}", "{\"a\":\n").dead());
  EXPECT_FALSE(after("{}", std::string(64, '[') + "\n" + std::string(240, ' ')).dead());
  EXPECT_TRUE(after("{}", std::string(64, '[') + "\n" + std::string(241, ' ')).dead());
  EXPECT_TRUE(after("{}", "[  ").dead());
}

// Tokens are their bytes: a space for SentencePiece's symbol, and one byte for <0x0A>.
TEST(Grammar, TakesAVocabularyOfCharactersAndBytes) {
  const Tokenizer& llama2 = llama2_tokenizer();
  const auto table = std::make_shared<const TokenTable>(llama2, llama2.vocab_size());
  EXPECT_EQ(table->bytes(llama2.token_to_id("\u2581the").value()), " the");
  EXPECT_EQ(table->bytes(llama2.token_to_id("<0x0A>").value()), "\n");
  EXPECT_EQ(table->bytes(llama2.token_to_id("</s>").value()), "");
  const auto grammar = compile(R"({"properties":{"the":{"type":"string","minLength":2},"n":{"type":"integer"}},
                                   "required":["the","n"],"additionalProperties":false})");
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const std::string text = random_output(grammar, table, seed);
    const nlohmann::json value = nlohmann::json::parse(text);  // throws unless it is JSON of whole characters
    EXPECT_GE(value["the"].get<std::string>().size(), 2u) << text;
    EXPECT_TRUE(value["n"].is_number_integer()) << text;
  }
}

TEST(Grammar, StartsAgainFromItsTokens) {
  const auto table = shipped_table();
  const auto grammar = compile("{}");
  GrammarMatcher matcher(grammar, table), copy = matcher;
  std::mt19937_64 rng(1);
  for (int i = 0; i < 60; ++i) {
    const auto allowed = allowed_tokens(matcher, *table);
    if (allowed.empty()) break;
    const std::int32_t token = allowed[rng() % allowed.size()];
    matcher.accept(token);
    copy.accept(token);
    EXPECT_EQ(allowed_tokens(copy, *table), allowed_tokens(matcher, *table));
    copy = GrammarMatcher(copy);
  }
  matcher.accept(-1);
  EXPECT_TRUE(matcher.dead());
  EXPECT_FALSE(matcher.complete());
  EXPECT_THAT(allowed_tokens(matcher, *table), testing::IsEmpty());
}

}  // namespace
}  // namespace foe
