#include "server/api/tokenize_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/http/api_error.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

using nlohmann::json;

ServedModel model() {
  return {.name = "m", .vocab_size = 561, .max_positions = 8, .max_choices = 3, .tokenizer = gpt2_tokenizer()};
}

template <typename Call>
std::string refusal_of_tokenizing(Call&& call) {
  try {
    call();
  } catch (const ApiError& error) {
    return fmt::format("{} {}", error.status(), error.what());
  }
  return "accepted";
}

TEST(Tokenize, GivesIdsAndTheirTexts) {
  const json answer = json::parse(tokenize(R"({"prompt": "a b", "return_token_strs": true})", model()));
  const std::vector<std::int32_t> ids = gpt2_tokenizer().encode("a b");
  EXPECT_EQ(answer["tokens"], ids);
  EXPECT_EQ(answer["count"], ids.size());
  EXPECT_EQ(answer["max_model_len"], 8);
  std::string joined;  // of the vocabulary's strings, which have another character for a space
  for (const json& token : answer["token_strs"]) joined += token.get<std::string>();
  EXPECT_EQ(joined, "a\u0120b");
  const json right = json::parse(
      tokenize(R"({"prompt": "a b c d", "truncate_prompt_tokens": 1, "truncation_side": "right"})", model()));
  EXPECT_EQ(right["tokens"], json({gpt2_tokenizer().encode("a b c d")[0]}));
  EXPECT_EQ(json::parse(tokenize(R"({"prompt": ""})", model()))["count"], 0);
}

TEST(Tokenize, RefusesWhatIsNoText) {
  EXPECT_EQ(refusal_of_tokenizing([] { tokenize("{}", model()); }),
            "400 prompt: expected a string, or messages, got none");
  EXPECT_EQ(refusal_of_tokenizing([] { tokenize(R"({"prompt": [1]})", model()); }),
            "400 prompt: expected a string, or messages, got [1]");
  EXPECT_EQ(refusal_of_tokenizing([] { tokenize(R"({"messages": []})", model()); }),
            "400 messages: expected a list of messages, got []");
  EXPECT_THAT(refusal_of_tokenizing([] { tokenize(R"({"prompt": "a", "promt": 1})", model()); }),
              testing::StartsWith("400 promt: expected model, prompt, "));
}

TEST(Detokenize, GivesTheTextBack) {
  const json ids = gpt2_tokenizer().encode("a b");
  EXPECT_EQ(json::parse(detokenize(json{{"tokens", ids}}.dump(), model()))["prompt"], "a b");
  // Half a character is no text.
  const std::vector<std::int32_t> emoji = gpt2_tokenizer().encode("\xf0\x9f\x98\x80");
  EXPECT_EQ(json::parse(detokenize(json{{"tokens", {emoji[0]}}}.dump(), model()))["prompt"], "\xef\xbf\xbd");
}

TEST(Detokenize, RefusesWhatAreNoIds) {
  EXPECT_EQ(refusal_of_tokenizing([] { detokenize("{}", model()); }),
            "400 tokens: expected a list of token ids, got none");
  EXPECT_EQ(refusal_of_tokenizing([] { detokenize(R"({"tokens": "a"})", model()); }),
            "400 tokens: expected a list of token ids, got \"a\"");
  EXPECT_EQ(refusal_of_tokenizing([] { detokenize(R"({"tokens": [561]})", model()); }),
            "400 tokens: expected token ids in [0, 561), got 561");
  EXPECT_EQ(refusal_of_tokenizing([] {
              detokenize(json{{"tokens", std::vector<int>(33)}}.dump(), model());
            }),
            "400 tokens: expected at most 32 token ids, got 33");
}

}  // namespace
}  // namespace foe
