#include "server/completion_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/api_error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json");
  return kTokenizer;
}

ServedModel model() {
  return {.name = "m", .vocab_size = 561, .max_positions = 64, .max_prompts = 3};
}

CompletionRequest parse(const std::string& body) {
  return parse_completion_request(body, model(), tokenizer());
}

// "STATUS PARAM MESSAGE" of the refusal.
std::string refusal(const std::string& body) {
  try {
    parse(body);
  } catch (const ApiError& error) {
    return fmt::format("{} [{}] {}", error.status(), error.param(), error.what());
  }
  return "accepted";
}

// The refusal of one field beside a good prompt; its message, if it is a 400 for that field.
std::string refusal_of(const std::string& field, const std::string& value) {
  const std::string got = refusal(fmt::format(R"({{"prompt": "x", "{}": {}}})", field, value));
  const std::string start = fmt::format("400 [{}] {}: ", field, field);
  return got.starts_with(start) ? got.substr(start.size()) : got;
}

TEST(CompletionRequest, HasDefaults) {
  const CompletionRequest r = parse(R"({"prompt": "hello"})");
  EXPECT_THAT(r.prompts, ElementsAre(tokenizer().encode("hello")));
  EXPECT_EQ(r.max_tokens, 16);
  EXPECT_EQ(r.sampling.temperature, 0.0f);
  EXPECT_EQ(r.sampling.top_p, 1.0f);
  EXPECT_EQ(r.sampling.top_k, 0);
  EXPECT_EQ(r.sampling.min_p, 0.0f);
  EXPECT_EQ(r.seed, std::nullopt);
  EXPECT_TRUE(r.stop.empty());
  EXPECT_FALSE(r.ignore_eos);
  EXPECT_TRUE(r.skip_special_tokens);
  EXPECT_FALSE(r.stream);
  EXPECT_FALSE(r.include_usage);
}

TEST(CompletionRequest, ReadsEveryField) {
  const CompletionRequest r = parse(R"({"model": "m", "prompt": "hello", "max_tokens": 3, "temperature": 0.5,
      "top_p": 0.25, "top_k": 7, "min_p": 0.125, "seed": -1, "stop": ["a", "b"], "ignore_eos": true,
      "skip_special_tokens": false, "stream": true, "stream_options": {"include_usage": true}, "user": "me",
      "n": 1, "echo": false, "logprobs": null, "logit_bias": {}, "presence_penalty": 0.0, "something_new": [1]})");
  EXPECT_EQ(r.max_tokens, 3);
  EXPECT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_EQ(r.sampling.top_p, 0.25f);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.min_p, 0.125f);
  EXPECT_EQ(r.seed, ~std::uint64_t{0});
  EXPECT_THAT(r.stop, ElementsAre("a", "b"));
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_FALSE(r.skip_special_tokens);
  EXPECT_TRUE(r.stream);
  EXPECT_TRUE(r.include_usage);
}

TEST(CompletionRequest, TakesNullForAbsent) {
  const CompletionRequest r = parse(R"({"model": null, "prompt": "x", "max_tokens": null, "temperature": null,
      "seed": null, "stop": null, "stream": null, "stream_options": null, "n": null})");
  EXPECT_EQ(r.max_tokens, 16);
  EXPECT_EQ(r.seed, std::nullopt);
}

TEST(CompletionRequest, TakesEveryFormOfThePrompt) {
  EXPECT_THAT(parse(R"({"prompt": ["a", "b"]})").prompts,
              ElementsAre(tokenizer().encode("a"), tokenizer().encode("b")));
  EXPECT_THAT(parse(R"({"prompt": [1, 2, 560]})").prompts, ElementsAre(ElementsAre(1, 2, 560)));
  EXPECT_THAT(parse(R"({"prompt": [[1], [2, 3]]})").prompts, ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
  EXPECT_EQ(parse(R"({"prompt": "\u0000"})").prompts[0].size(), 1u);
}

TEST(CompletionRequest, TakesTheEdgesOfRanges) {
  EXPECT_EQ(parse(R"({"prompt": [1], "max_tokens": 63})").max_tokens, 63);
  EXPECT_EQ(parse(R"({"prompt": "x", "top_k": -1})").sampling.top_k, 0);
  EXPECT_EQ(parse(R"({"prompt": "x", "top_k": 2147483647})").sampling.top_k, 2147483647);
  EXPECT_EQ(parse(R"({"prompt": "x", "temperature": 100})").sampling.temperature, 100.0f);
  EXPECT_EQ(parse(R"({"prompt": "x", "seed": 18446744073709551615})").seed, ~std::uint64_t{0});
  EXPECT_THAT(parse(R"({"prompt": "x", "stop": "end"})").stop, ElementsAre("end"));
}

TEST(CompletionRequest, RefusesWhatIsNotJson) {
  EXPECT_THAT(refusal(""), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_THAT(refusal("{\"prompt\": \"x\""), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_THAT(refusal("{\"prompt\": \"\xff\"}"), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_THAT(refusal(R"({"prompt": "\ud800"})"), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_THAT(refusal(R"({"prompt": "x", "temperature": NaN})"), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_THAT(refusal(R"({"prompt": "x", "temperature": 1e999})"), StartsWith("400 [] body: expected JSON, got: "));
  EXPECT_EQ(refusal(R"({"prompt": "x", "prompt": "y"})"),
            R"(400 [] body: expected every key once, got "prompt" twice)");
  EXPECT_EQ(refusal("{\"prompt\": " + std::string(1000, '[') + std::string(1000, ']') + "}"),
            "400 [] body: expected JSON nested at most 32 deep, got deeper nesting");
  EXPECT_EQ(refusal("[1]"), "400 [] expected a JSON object, got [1]");
}

TEST(CompletionRequest, RefusesAnotherModel) {
  EXPECT_EQ(refusal(R"({"prompt": "x", "model": "gpt-4"})"),
            "404 [model] The model `gpt-4` does not exist: this server has `m`.");
  EXPECT_EQ(refusal_of("model", "7"), "expected a string, got 7");
}

TEST(CompletionRequest, RefusesWrongPrompts) {
  EXPECT_EQ(refusal("{}"), "400 [prompt] prompt: expected a string, a list of strings, or token ids, got none");
  const auto prompt = [](const std::string& value) {
    const std::string got = refusal("{\"prompt\": " + value + "}");
    const std::string start = "400 [prompt] prompt: ";
    return got.starts_with(start) ? got.substr(start.size()) : got;
  };
  EXPECT_EQ(prompt("7"), "expected a string, a list of strings, or token ids, got 7");
  EXPECT_EQ(prompt("{}"), "expected a string, a list of strings, or token ids, got {}");
  EXPECT_EQ(prompt("[]"), "expected a string, a list of strings, or token ids, got []");
  EXPECT_EQ(prompt("\"\""), "expected at least one token, got none");
  EXPECT_EQ(prompt("[[1], []]"), "expected at least one token, got none");
  EXPECT_EQ(prompt("[\"a\", 1]"), "expected strings or lists of token ids, got 1");
  EXPECT_EQ(prompt("[1, \"a\"]"), "expected token ids in [0, 561), got \"a\"");
  for (const std::string id : {"-1", "561", "1.5", "18446744073709551616", "true", "[1]"})
    EXPECT_THAT(prompt("[1, " + id + "]"), StartsWith("expected token ids in [0, 561), got ")) << id;
  EXPECT_EQ(prompt(R"(["a", "b", "c", "d"])"), "expected at most 3 prompts, got 4");
}

TEST(CompletionRequest, RefusesWhatDoesNotFitTheContext) {
  EXPECT_EQ(refusal(R"({"prompt": [1, 2], "max_tokens": 63})"),
            "400 [prompt] prompt: this model's maximum context length is 64 tokens, but 65 were requested (2 in the "
            "prompt, 63 for the answer)");
  // So long that it is not even tokenised.
  EXPECT_THAT(
      refusal("{\"prompt\": \"" + std::string(1 << 20, 'x') + "\"}"),
      testing::AllOf(StartsWith("400 [prompt] prompt: this model's maximum context length is 64 tokens, no more"),
                     testing::EndsWith("the prompt has 1048576")));
}

TEST(CompletionRequest, RefusesWrongIntegers) {
  for (const std::string value : {"0", "-1", "65", "1.0", "\"5\"", "true", "9223372036854775808", "1e30"})
    EXPECT_EQ(refusal_of("max_tokens", value).substr(0, 38), "expected an integer from 1 to 64, got ") << value;
  for (const std::string value : {"-2", "2147483648", "0.5", "\"a\"", "18446744073709551615"})
    EXPECT_THAT(refusal_of("top_k", value), StartsWith("expected an integer from -1 to 2147483647, got ")) << value;
  for (const std::string value : {"1.5", "\"a\"", "18446744073709551616", "[]"})
    EXPECT_THAT(refusal_of("seed", value), StartsWith("expected an integer of 64 bits, got ")) << value;
}

TEST(CompletionRequest, RefusesWrongNumbers) {
  for (const std::string field : {"temperature", "top_p", "min_p"}) {
    EXPECT_EQ(refusal_of(field, "\"1\""), "expected a number, got \"1\"");
    EXPECT_EQ(refusal_of(field, "true"), "expected a number, got true");
    EXPECT_EQ(refusal_of(field, "1e300"), "expected a number that a float can hold, got 1e+300");
    EXPECT_EQ(refusal_of(field, "-1e300"), "expected a number that a float can hold, got -1e+300");
  }
  EXPECT_EQ(refusal(R"({"prompt": "x", "temperature": -0.5})"), "400 [] temperature: expected 0 to 100, got -0.5");
  EXPECT_EQ(refusal(R"({"prompt": "x", "temperature": 101})"), "400 [] temperature: expected 0 to 100, got 101");
  EXPECT_EQ(refusal(R"({"prompt": "x", "top_p": 0})"), "400 [] top_p: expected more than 0 and at most 1, got 0");
  EXPECT_EQ(refusal(R"({"prompt": "x", "top_p": 1.5})"), "400 [] top_p: expected more than 0 and at most 1, got 1.5");
  EXPECT_EQ(refusal(R"({"prompt": "x", "min_p": -0.5})"), "400 [] min_p: expected 0 to 1, got -0.5");
}

TEST(CompletionRequest, RefusesWrongFlags) {
  for (const std::string field : {"stream", "ignore_eos", "skip_special_tokens"}) {
    EXPECT_EQ(refusal_of(field, "1"), "expected true or false, got 1");
    EXPECT_EQ(refusal_of(field, "\"true\""), "expected true or false, got \"true\"");
  }
  EXPECT_EQ(refusal_of("stream_options", "{}"), "expected it only with stream = true");
  EXPECT_EQ(refusal(R"({"prompt": "x", "stream": true, "stream_options": 1})"),
            "400 [stream_options] stream_options: expected an object, got 1");
  EXPECT_EQ(refusal(R"({"prompt": "x", "stream": true, "stream_options": {"include_usage": 1}})"),
            "400 [include_usage] include_usage: expected true or false, got 1");
}

TEST(CompletionRequest, RefusesWrongStopStrings) {
  EXPECT_EQ(refusal_of("stop", "7"), "expected a string or a list of strings, got 7");
  EXPECT_EQ(refusal_of("stop", "[\"a\", 7]"), "expected a string or a list of strings, got [\"a\",7]");
  EXPECT_EQ(refusal_of("stop", "\"\""), "expected strings of 1 to 1024 bytes, got one of 0");
  EXPECT_EQ(refusal_of("stop", "\"" + std::string(1025, 'x') + "\""),
            "expected strings of 1 to 1024 bytes, got one of 1025");
  std::string many = "[\"a\"";
  for (int i = 0; i < 16; ++i) many += ", \"a\"";
  EXPECT_EQ(refusal_of("stop", many + "]"), "expected at most 16 strings, got 17");
}

TEST(CompletionRequest, RefusesWhatIsNotThereYet) {
  const std::pair<std::string, std::string> fields[] = {{"n", "2"},
                                                        {"best_of", "2"},
                                                        {"echo", "true"},
                                                        {"logprobs", "1"},
                                                        {"logprobs", "0"},
                                                        {"prompt_logprobs", "1"},
                                                        {"suffix", "\"end\""},
                                                        {"presence_penalty", "0.5"},
                                                        {"frequency_penalty", "0.5"},
                                                        {"repetition_penalty", "1.5"},
                                                        {"length_penalty", "2"},
                                                        {"logit_bias", "{\"1\":5}"},
                                                        {"stop_token_ids", "[1]"},
                                                        {"include_stop_str_in_output", "true"},
                                                        {"min_tokens", "1"},
                                                        {"use_beam_search", "true"},
                                                        {"response_format", "{\"type\":\"json_object\"}"},
                                                        {"prompt_embeds", "\"AA==\""}};
  for (const auto& [field, value] : fields) EXPECT_EQ(refusal_of(field, value), value + " is not supported yet");
}

}  // namespace
}  // namespace foe
