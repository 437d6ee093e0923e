// Bodies of POST /v1/embeddings.
#include "server/api/embedding_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

ServedModel embedding_model() {
  ServedModel m = small_model();
  m.hidden_size = 48;
  m.chat_template = ChatTemplate::parse(
      "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}");
  return m;
}

EmbeddingRequest read_embedding(const json& body) {
  return parse_embedding_request(body.dump(), embedding_model());
}

std::vector<std::vector<std::int32_t>> ids_of(const json& body) {
  std::vector<std::vector<std::int32_t>> all;
  for (const Prompt& input : read_embedding(body).inputs) all.push_back(input.tokens());
  return all;
}

// What is said of a body; the field that it names must be `param`.
std::string embedding_body_refusal(const std::string& body, const std::string& param) {
  try {
    parse_embedding_request(body, embedding_model());
  } catch (const ApiError& error) {
    EXPECT_EQ(error.param(), param) << body.substr(0, 100);
    return fmt::format("{} {}", error.status(), error.what());
  }
  return "accepted";
}
std::string embedding_refusal(const json& fields, const std::string& param) {
  json body{{"input", "a"}};
  body.update(fields);
  return embedding_body_refusal(body.dump(), param);
}

TEST(EmbeddingRequest, ReadsTextsAndIdsAloneAndInLists) {
  const std::vector<std::int32_t> a = gpt2_tokenizer().encode("a b"), b = gpt2_tokenizer().encode("c");
  using Ids = std::vector<std::vector<std::int32_t>>;
  EXPECT_EQ(ids_of({{"input", "a b"}}), Ids{a});
  EXPECT_EQ(ids_of({{"input", {"a b", "c"}}}), (Ids{a, b}));
  EXPECT_EQ(ids_of({{"input", {5, 6}}}), (Ids{{5, 6}}));
  EXPECT_EQ(ids_of({{"input", {{5, 6}, {7}}}}), (Ids{{5, 6}, {7}}));
}

TEST(EmbeddingRequest, HasDefaultsAndWhatItSays) {
  const EmbeddingRequest plain = read_embedding({{"input", "a"}, {"user", "me"}, {"request_id", "1"}});
  EXPECT_EQ(plain.pooling, Pooling::kLast);
  EXPECT_TRUE(plain.normalised);
  EXPECT_FALSE(plain.base64);
  const EmbeddingRequest other = read_embedding({{"input", "a"},
                                                 {"pooling", "mean"},
                                                 {"normalize", false},
                                                 {"encoding_format", "base64"},
                                                 {"dimensions", 48},
                                                 {"priority", 7},
                                                 {"cache_salt", "s"}});
  EXPECT_EQ(other.pooling, Pooling::kMean);
  EXPECT_FALSE(other.normalised);
  EXPECT_TRUE(other.base64);
  EXPECT_FALSE(read_embedding({{"input", "a"}, {"use_activation", false}}).normalised);
  const std::vector<Request> requests = engine_requests(other);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].pooling, Pooling::kMean);
  EXPECT_EQ(requests[0].max_tokens, 0);
  EXPECT_EQ(requests[0].priority, 7);
  EXPECT_NE(requests[0].cache_salt, 0u);
}

TEST(EmbeddingRequest, TakesConversationsAsTheTemplateWritesThem) {
  const json messages = {{{"role", "user"}, {"content", "a b"}}};
  EXPECT_EQ(ids_of({{"messages", messages}})[0], gpt2_tokenizer().encode("a b"));
  EXPECT_EQ(ids_of({{"messages", messages}, {"add_generation_prompt", true}})[0], gpt2_tokenizer().encode("a b>"));
  EXPECT_EQ(ids_of({{"messages", messages}, {"chat_template_kwargs", {{"add_generation_prompt", true}}}})[0],
            gpt2_tokenizer().encode("a b>"));
  EXPECT_THAT(embedding_refusal({{"messages", messages}}, "input"),
              HasSubstr("expected an input or messages, got both"));
  EXPECT_THAT(embedding_refusal({{"continue_final_message", true}}, "continue_final_message"),
              HasSubstr("only beside messages"));
}

TEST(EmbeddingRequest, TruncatesAndFillsTheContext) {
  std::vector<std::int32_t> ids(70);
  for (int i = 0; i < 70; ++i) ids[i] = i;
  const std::vector<std::int32_t> fits(ids.begin(), ids.begin() + 64), last(ids.end() - 64, ids.end());
  EXPECT_EQ(ids_of({{"input", fits}})[0], fits);  // no room for an answer is needed
  EXPECT_THAT(embedding_refusal({{"input", ids}}, "input"), HasSubstr("64 tokens, but input 0 has 70"));
  EXPECT_EQ(ids_of({{"input", ids}, {"truncate_prompt_tokens", -1}})[0], last);
  EXPECT_EQ(ids_of({{"input", ids}, {"truncate_prompt_tokens", 2}, {"truncation_side", "right"}})[0],
            (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(ids_of({{"input", {ids, {3}}}, {"truncate_prompt_tokens", 1}}),
            (std::vector<std::vector<std::int32_t>>{{69}, {3}}));
  for (const json& bad : {json(0), json(-2), json(65), json(1.5), json("1")})
    EXPECT_THAT(embedding_refusal({{"truncate_prompt_tokens", bad}}, "truncate_prompt_tokens"), StartsWith("400 "));
}

TEST(EmbeddingRequest, RefusesOtherInputsByName) {
  for (const char* bad :
       {"null",       "5",           "true",          "{}",          "[]",       "[null]",     "[true]",
        "[{}]",       R"(["a", 5])", R"(["a", [5]])", R"([5, "a"])", "[5, [5]]", "[[5], 5]",   R"([[5], "a"])",
        R"([["a"]])", "[[[5]]]",     "[1.5]",         "[-1]",        "[561]",    "[5, 1e300]", "[[5], [561]]"})
    EXPECT_THAT(embedding_refusal({{"input", json::parse(bad)}}, "input"), StartsWith("400 input: expected ")) << bad;
  EXPECT_THAT(embedding_refusal({{"input", ""}}, "input"), HasSubstr("at least one token, got none as input 0"));
  EXPECT_THAT(embedding_refusal({{"input", {"a", ""}}}, "input"), HasSubstr("at least one token, got none as input 1"));
  EXPECT_THAT(embedding_refusal({{"input", {{1}, json::array()}}}, "input"), HasSubstr("got none as input 1"));
  EXPECT_EQ(read_embedding({{"input", std::vector<std::string>(kMaxInputs, "a")}}).inputs.size(), kMaxInputs);
  EXPECT_THAT(embedding_refusal({{"input", std::vector<std::string>(kMaxInputs + 1, "a")}}, "input"),
              HasSubstr("expected at most 2048 inputs, got 2049"));
  EXPECT_THAT(embedding_refusal({{"input", std::string(100000, 'a')}}, "input"),
              HasSubstr("maximum context length is 64"));
  EXPECT_EQ(embedding_body_refusal("{}", "input"),
            "400 input: expected a string, a list of strings, token ids, or a list of lists of token ids, got none");
}

TEST(EmbeddingRequest, RefusesOtherValuesByName) {
  for (const json& bad : {json(24), json(0), json(-1), json(49), json(1e300), json("48"), json(48.5), json(true)})
    EXPECT_THAT(embedding_refusal({{"dimensions", bad}}, "dimensions"), StartsWith("400 dimensions: expected "));
  EXPECT_THAT(embedding_body_refusal(R"({"input": "a", "dimensions": NaN})", ""), StartsWith("400 "));
  for (const char* bad : {"bytes", "bytes_only", "hex", ""})
    EXPECT_THAT(embedding_refusal({{"encoding_format", bad}}, "encoding_format"),
                HasSubstr("expected float or base64, got "));
  for (const json& bad : {json("cls"), json(5), json("MEAN"), json::array()})
    EXPECT_THAT(embedding_refusal({{"pooling", bad}}, "pooling"), HasSubstr("expected last or mean, got "));
  EXPECT_THAT(embedding_refusal({{"normalize", 1}}, "normalize"), HasSubstr("expected true or false"));
  EXPECT_THAT(embedding_refusal({{"normalize", true}, {"use_activation", false}}, "use_activation"),
              HasSubstr("expected normalize = true, which says the same, got false"));
  EXPECT_THAT(embedding_refusal({{"embed_dtype", "float16"}}, "embed_dtype"), HasSubstr("expected \"float32\""));
  EXPECT_EQ(embedding_refusal({{"user", 1}}, "user"), "400 user: expected the type string, got 1");
  EXPECT_THAT(embedding_refusal({{"temperature", 1}}, "temperature"), HasSubstr("got one of another"));
  EXPECT_THAT(embedding_refusal({{"model", "other"}}, "model"), StartsWith("404 "));
}

}  // namespace
}  // namespace foe
