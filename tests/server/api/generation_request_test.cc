#include "server/api/generation_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;

GenerationRequest parse(const std::string& body) {
  return parse_completion_request(body, small_model());
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
  const GenerationRequest r = parse(R"({"prompt": "hello"})");
  EXPECT_THAT(r.prompts, ElementsAre(gpt2_tokenizer().encode("hello")));
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
  const GenerationRequest r = parse(R"({"model": "m", "prompt": "hello", "max_tokens": 3, "temperature": 0.5,
      "top_p": 0.25, "top_k": 7, "min_p": 0.125, "seed": -1, "stop": ["a", "b"], "ignore_eos": true,
      "skip_special_tokens": false, "stream": true, "stream_options": {"include_usage": true}, "user": "me",
      "n": 2, "echo": true, "logprobs": 3, "logit_bias": {"5": -100, "560": 1.5}, "presence_penalty": 0.5,
      "frequency_penalty": -0.5, "repetition_penalty": 1.25, "min_tokens": 2, "stop_token_ids": [7, 8],
      "include_stop_str_in_output": true, "priority": -3, "response_format": {"type": "json_object"}})");
  EXPECT_EQ(r.n, 2);
  EXPECT_EQ(r.choices(), 2u);
  EXPECT_TRUE(r.echo);
  EXPECT_EQ(r.sampling.logprobs, 3);
  EXPECT_EQ(r.sampling.prompt_logprobs, 3);
  ASSERT_EQ(r.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(r.sampling.logit_bias[0].token, 5);
  EXPECT_EQ(r.sampling.logit_bias[0].bias, -100.0f);
  EXPECT_EQ(r.sampling.logit_bias[1].bias, 1.5f);
  EXPECT_EQ(r.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(r.sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(r.sampling.min_tokens, 2);
  EXPECT_THAT(r.stop_ids, ElementsAre(7, 8));
  EXPECT_TRUE(r.include_stop);
  EXPECT_EQ(r.priority, -3);
  EXPECT_EQ(r.constraint.kind, Constraint::Kind::kJsonObject);
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
  const GenerationRequest r = parse(R"({"model": null, "prompt": "x", "max_tokens": null, "temperature": null,
      "seed": null, "stop": null, "stream": null, "stream_options": null, "n": null})");
  EXPECT_EQ(r.max_tokens, 16);
  EXPECT_EQ(r.seed, std::nullopt);
}

TEST(CompletionRequest, TakesEveryFormOfThePrompt) {
  EXPECT_THAT(parse(R"({"prompt": ["a", "b"]})").prompts,
              ElementsAre(gpt2_tokenizer().encode("a"), gpt2_tokenizer().encode("b")));
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
  // Each key is looked for among those before it.
  std::string many = "{\"prompt\": \"x\"";
  for (int i = 0; i < 200000; ++i) many += ",\"" + std::to_string(i) + "\":1";
  EXPECT_EQ(refusal(many + "}"), "400 [] body: expected objects of at most 1024 members, got one of more");
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

TEST(CompletionRequest, RefusesTokensThatTheModelLacks) {
  ServedModel small = small_model();
  small.vocab_size = 560;
  try {
    parse_completion_request(R"({"prompt": "a<|endoftext|>"})", small);
    FAIL() << "accepted";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.param(), "prompt");
    EXPECT_STREQ(error.what(), "expected tokens of the model, which has 560, got 560 ('<|endoftext|>')");
  }
}

TEST(CompletionRequest, RefusesWhatDoesNotFitTheContext) {
  EXPECT_EQ(refusal(R"({"prompt": [1, 2], "max_tokens": 63})"),
            "400 [prompt] prompt: this model's maximum context length is 64 tokens, but 65 were requested (2 in the "
            "prompt, 63 for the answer)");
  // So long that it is not even tokenised.
  EXPECT_THAT(
      refusal("{\"prompt\": \"" + std::string(1 << 20, 'x') + "\"}"),
      testing::AllOf(
          StartsWith("400 [prompt] prompt: this model's maximum context length is 64 tokens, which are at most "),
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
  EXPECT_EQ(refusal(R"({"prompt": "x", "temperature": -0.5})"),
            "400 [temperature] temperature: expected 0 to 100, got -0.5");
  EXPECT_EQ(refusal(R"({"prompt": "x", "temperature": 101})"),
            "400 [temperature] temperature: expected 0 to 100, got 101");
  EXPECT_EQ(refusal(R"({"prompt": "x", "top_p": 0})"), "400 [top_p] top_p: expected more than 0 and at most 1, got 0");
  EXPECT_EQ(refusal(R"({"prompt": "x", "top_p": 1.5})"),
            "400 [top_p] top_p: expected more than 0 and at most 1, got 1.5");
  EXPECT_EQ(refusal(R"({"prompt": "x", "min_p": -0.5})"), "400 [min_p] min_p: expected 0 to 1, got -0.5");
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

TEST(CompletionRequest, TakesNoTokensOnlyWithEcho) {
  EXPECT_EQ(parse(R"({"prompt": "x", "max_tokens": 0, "echo": true})").max_tokens, 0);
  EXPECT_EQ(refusal_of("max_tokens", "0"), "expected an integer from 1 to 64, got 0");
}

TEST(CompletionRequest, RefusesWrongLogprobs) {
  EXPECT_EQ(parse(R"({"prompt": "x", "logprobs": false})").sampling.logprobs, -1);
  EXPECT_EQ(parse(R"({"prompt": "x", "logprobs": 0})").sampling.logprobs, 0);
  for (const std::string value : {"-1", "21", "true", "1.5", "\"1\""})
    EXPECT_THAT(refusal_of("logprobs", value), StartsWith("expected an integer from 0 to 20, got ")) << value;
}

TEST(CompletionRequest, ReadsWhichTokensLogprobsAreOf) {
  EXPECT_THAT(parse(R"({"prompt": "x", "logprobs": 0, "logprob_token_ids": [9, 3, 9]})").sampling.logprob_tokens,
              ElementsAre(3, 9));
  EXPECT_EQ(refusal_of("logprob_token_ids", "[3]"), "expected it only with logprobs");
  EXPECT_EQ(refusal_of("logprob_token_ids", "[561]"), "expected token ids in [0, 561), got 561");
  EXPECT_EQ(
      refusal(R"({"prompt": "x", "logprobs": 1, "logprob_token_ids": [3], "echo": true})"),
      "400 [logprob_token_ids] logprob_token_ids: expected it without echo: it is of the answer's tokens, and not "
      "of the prompt's");
}

TEST(CompletionRequest, RefusesWrongBiases) {
  EXPECT_EQ(refusal_of("logit_bias", "[1]"), "expected an object, got [1]");
  for (const std::string key : {"", "-1", "561", "a", "1.0", "99999999999999999999", " 1"})
    EXPECT_EQ(refusal_of("logit_bias", "{\"" + key + "\": 1}"),
              "expected token ids in [0, 561) as keys, got \"" + key + "\"");
  EXPECT_EQ(refusal_of("logit_bias", R"({"a": 1, "5": 2, "b": 3})"),
            R"(expected token ids in [0, 561) as keys, got "a", "b")");
  for (const std::string bias : {"100.5", "-101", "1e300", "\"1\"", "true", "null"})
    EXPECT_THAT(refusal_of("logit_bias", "{\"1\": " + bias + "}"),
                StartsWith("expected numbers from -100 to 100, got "));
}

TEST(CompletionRequest, RefusesMoreChoicesThanTheQueueHolds) {
  EXPECT_EQ(parse(R"({"prompt": "x", "n": 3})").choices(), 3u);
  EXPECT_EQ(refusal_of("n", "4"), "expected an integer from 1 to 3, got 4");
  EXPECT_EQ(refusal(R"({"prompt": ["a", "b"], "n": 2})"),
            "400 [n] n: expected at most 3 choices in a request, got 2 for each of 2 prompts");
}

TEST(CompletionRequest, ReadsResponseFormats) {
  EXPECT_EQ(parse(R"({"prompt": "x", "response_format": {"type": "text"}})").constraint.kind, Constraint::Kind::kNone);
  const GenerationRequest r = parse(
      R"({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}})");
  EXPECT_EQ(r.constraint.kind, Constraint::Kind::kJsonSchema);
  EXPECT_EQ(r.constraint.rule, R"({"type":"null"})");
  const GenerationRequest with_schema =
      parse(R"({"prompt": "x", "response_format": {"type": "json_object", "schema": {"type": "null"}}})");
  EXPECT_EQ(with_schema.constraint, r.constraint);
  for (const char* ignored : {R"({"type": "text", "schema": {}})", R"({"type": "json_object", "json_schema": {}})",
                              R"({"type": "json_schema", "schema": {}, "json_schema": {"schema": {}}})",
                              R"({"type": "json_schema", "json_schema": {"schema": {}, "regex": "x"}})"})
    EXPECT_THAT(refusal_of("response_format", ignored), AllOf(StartsWith("expected "), HasSubstr(", got \"")))
        << ignored;
  EXPECT_EQ(refusal_of("structured_outputs", R"({"json": false})"), "expected a JSON schema, got false");
  EXPECT_THAT(refusal(R"({"prompt": "x", "ignore_eos": true, "response_format": {"type": "json_object"}})"),
              StartsWith("400 [ignore_eos] ignore_eos: expected false, or a stop token"));
  EXPECT_EQ(refusal_of("response_format", "\"json\""), "expected an object, got \"json\"");
  EXPECT_EQ(refusal_of("response_format", "{}"), "expected a type of text, json_object or json_schema, got none");
  EXPECT_EQ(refusal_of("response_format", R"({"type": "xml"})"),
            "expected a type of text, json_object or json_schema, got \"xml\"");
  EXPECT_EQ(refusal_of("response_format", R"({"type": "json_schema", "json_schema": 1})"),
            R"(expected json_schema to be an object with a schema, got {"json_schema":1,"type":"json_schema"})");
}

// The same rule as other servers and older clients write it.
TEST(CompletionRequest, ReadsConstraintsInEveryForm) {
  using Kind = Constraint::Kind;
  const auto constraint = [](const std::string& field) {
    return parse(R"({"prompt": "x", )" + field + "}").constraint;
  };
  const Constraint schema{Kind::kJsonSchema, R"({"type":"null"})"}, regex{Kind::kRegex, "yes|no"},
      choice{Kind::kChoice, R"(["yes","no"])"};
  EXPECT_EQ(constraint(R"("structured_outputs": {"json": {"type": "null"}, "regex": null})"), schema);
  EXPECT_EQ(constraint(R"("structured_outputs": {"json": "{\"type\":\"null\"}"})"), schema);
  EXPECT_EQ(constraint(R"("guided_json": {"type": "null"})"), schema);
  EXPECT_EQ(constraint(R"("json_schema": {"type": "null"})"), schema);
  EXPECT_EQ(constraint(R"("structured_outputs": {"json_object": true})"), (Constraint{Kind::kJsonObject}));
  EXPECT_EQ(constraint(R"("structured_outputs": {"regex": "yes|no"})"), regex);
  EXPECT_EQ(constraint(R"("guided_regex": "yes|no")"), regex);
  EXPECT_EQ(constraint(R"("regex": "yes|no")"), regex);
  EXPECT_EQ(constraint(R"("structured_outputs": {"choice": ["yes", "no"]})"), choice);
  EXPECT_EQ(constraint(R"("guided_choice": ["yes", "no"])"), choice);
  EXPECT_EQ(constraint(R"("structured_outputs": {"json_object": false})"), Constraint{});
  for (const char* nothing : {"{}", R"({"json":null})"})
    EXPECT_EQ(refusal_of("structured_outputs", nothing),
              std::string("expected a rule (json, json_object, regex, choice or grammar), got ") + nothing);
  const Constraint grammar{Kind::kGrammar, R"(root ::= "a")"};
  EXPECT_EQ(constraint(R"("structured_outputs": {"grammar": "root ::= \"a\""})"), grammar);
  for (const char* name : {"grammar", "guided_grammar", "ebnf"})
    EXPECT_EQ(constraint(fmt::format(R"("{}": "root ::= \"a\"")", name)), grammar);

  EXPECT_EQ(refusal_of("structured_outputs", R"({"structural_tag": "{}"})"),
            R"(expected json, json_object (true or false), regex, choice or grammar, got "structural_tag": "{}")");
  EXPECT_EQ(refusal_of("grammar", R"("root ::= \"a\"\n  ]")"),
            "line 2, column 3: expected an alternative, or the next rule, got ']'");
  EXPECT_EQ(refusal_of("structured_outputs", "1"), "expected an object, got 1");
  EXPECT_EQ(refusal_of("guided_regex", "1"), "expected a regular expression, a string, got 1");
  EXPECT_THAT(refusal_of("guided_regex", "\"(\""), StartsWith("at byte 1: expected"));
  EXPECT_EQ(refusal_of("guided_choice", "[]"), "expected a list of at least one text, got []");
  EXPECT_EQ(refusal_of("guided_json", "3"), "expected a JSON schema, got 3");
  EXPECT_EQ(refusal_of("guided_json", R"({"not": {}})"),
            "#/not: expected a keyword that is supported, got \"not\": what must not be has no grammar of its own");
  EXPECT_EQ(refusal(R"({"prompt": "x", "regex": "a", "response_format": {"type": "json_object"}})"),
            "400 [regex] regex: expected one rule for the text, got another one beside that of response_format");
}

TEST(CompletionRequest, ReadsHowThePromptBecomesTokens) {
  EXPECT_THAT(parse(R"({"prompt": [1, 2, 3], "truncate_prompt_tokens": 2})").prompts, ElementsAre(ElementsAre(2, 3)));
  EXPECT_THAT(parse(R"({"prompt": [1], "truncate_prompt_tokens": 2})").prompts, ElementsAre(ElementsAre(1)));
  EXPECT_THAT(parse(R"({"prompt": [1, 2, 3], "truncate_prompt_tokens": 2, "truncation_side": "right"})").prompts,
              ElementsAre(ElementsAre(1, 2)));
  EXPECT_EQ(refusal_of("truncation_side", "\"middle\""), "expected left or right, got \"middle\"");
  EXPECT_EQ(refusal_of("truncate_prompt_tokens", "0"), "expected an integer from 1 to 64, got 0");
  EXPECT_EQ(refusal_of("add_special_tokens", "1"), "expected true or false, got 1");
  EXPECT_EQ(parse(R"({"prompt": "x", "n": 2, "best_of": 2})").n, 2);
  EXPECT_EQ(refusal_of("best_of", "2"), "expected n = 1 (more choices than that are not supported), got 2");
}

TEST(CompletionRequest, ReadsWhatIsReported) {
  const GenerationRequest r = parse(R"({"prompt": "x", "prompt_logprobs": 3, "echo": true, "logprobs": 1})");
  EXPECT_EQ(r.prompt_logprobs, 3);
  EXPECT_EQ(r.sampling.prompt_logprobs, 3);
  EXPECT_EQ(r.sampling.logprobs, 1);
  EXPECT_EQ(parse(R"({"prompt": "x", "prompt_logprobs": 0})").sampling.prompt_logprobs, 0);
  EXPECT_EQ(parse(R"({"prompt": "x"})").sampling.prompt_logprobs, -1);
  EXPECT_EQ(refusal_of("prompt_logprobs", "-1"),
            "expected at most 20 (--max-prompt-logprobs), got -1, which is the whole vocabulary of 561");
  EXPECT_EQ(refusal_of("prompt_logprobs", "21"), "expected at most 20 (--max-prompt-logprobs), got 21");
  EXPECT_EQ(refusal_of("prompt_logprobs", "-2"), "expected an integer from -1 to 2147483647, got -2");
  EXPECT_EQ(refusal(R"({"prompt": "x", "prompt_logprobs": 0, "stream": true})"),
            "400 [prompt_logprobs] prompt_logprobs: expected it only with stream = false");
  const auto streamed = [](const std::string& options) {
    return R"({"prompt": "x", "stream": true, "stream_options": )" + options + "}";
  };
  EXPECT_TRUE(parse(streamed(R"({"include_usage": true, "continuous_usage_stats": true})")).usage_in_chunks);
  EXPECT_FALSE(parse(streamed(R"({"include_usage": true})")).usage_in_chunks);
  EXPECT_FALSE(parse(streamed(R"({"continuous_usage_stats": true})")).usage_in_chunks);  // as vLLM
}

// What a request does not say is the model's to say.
TEST(CompletionRequest, TakesTheModelsDefaults) {
  ServedModel model = small_model();
  model.defaults.sampling = {.temperature = 0.5f, .top_p = 0.75f, .top_k = 7};
  model.defaults.max_tokens = 5;
  const GenerationRequest r = parse_completion_request(R"({"prompt": "x", "top_p": 1})", model);
  EXPECT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_EQ(r.sampling.top_p, 1.0f);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(parse_completion_request(R"({"prompt": "x", "max_tokens": 9, "top_k": -1})", model).max_tokens, 9);
  EXPECT_EQ(parse_completion_request(R"({"prompt": "x", "top_k": -1})", model).sampling.top_k, 0);
}

TEST(CompletionRequest, ReadsWhichTokensMayCome) {
  const GenerationRequest r = parse(R"({"prompt": "x", "allowed_token_ids": [7, 3, 7], "bad_words": ["the", " the"]})");
  EXPECT_THAT(r.sampling.allowed_tokens, ElementsAre(3, 7));
  const auto ids = [](const std::string& text) { return gpt2_tokenizer().encode(text, {.add_special_tokens = false}); };
  ASSERT_FALSE(r.sampling.bad_words.empty());
  EXPECT_EQ(r.sampling.bad_words[0], ids("the"));
  if (ids(" the").size() == ids("the").size()) {
    EXPECT_EQ(r.sampling.bad_words[1], ids(" the"));
  }
  EXPECT_EQ(refusal_of("allowed_token_ids", "[]"), "expected at least one token id, got none");
  EXPECT_EQ(refusal_of("allowed_token_ids", "[561]"), "expected token ids in [0, 561), got 561");
  EXPECT_EQ(refusal_of("bad_words", "[\" \"]"), "expected words that are more than spaces, got  ");
  EXPECT_EQ(refusal_of("bad_words", "[1]"), "expected a string or a list of strings, got [1]");
}

TEST(CompletionRequest, ReadsASaltAsADigest) {
  const auto salt = [](const std::string& value) {
    return engine_requests(parse(R"({"prompt": "x", "cache_salt": )" + value + "}"), {}).at(0).cache_salt;
  };
  EXPECT_EQ(salt("null"), 0u);
  EXPECT_EQ(salt("\"a\""), salt("\"a\""));
  EXPECT_NE(salt("\"a\""), salt("\"b\""));
  EXPECT_GT(salt("\"a\""), 1u);
  EXPECT_EQ(refusal_of("cache_salt", "\"\""), "expected strings of 1 to 1024 bytes, got one of 0");
  EXPECT_EQ(refusal_of("cache_salt", "7"), "expected a string or a list of strings, got 7");
}

// Texts leave special tokens out, so that a stop string could never match one.
TEST(CompletionRequest, AStopStringMaySpellASpecialToken) {
  const GenerationRequest r = parse(R"({"prompt": "x", "stop": ["a", "<|endoftext|>"]})");
  const std::int32_t id = gpt2_tokenizer().token_to_id("<|endoftext|>").value();
  EXPECT_THAT(r.stop_tokens, ElementsAre(Pair(id, "<|endoftext|>")));
  EXPECT_THAT(engine_requests(r, {2})[0].stop_ids, ElementsAre(2, id));
}

// --- what the engine gets ---

TEST(EngineRequests, AreOneForEachChoice) {
  GenerationRequest request = parse(R"({"prompt": [5, 6], "n": 3, "seed": 7, "stop_token_ids": [9]})");
  std::vector<Request> requests = engine_requests(request, {2});
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_THAT(requests[2].prompt, ElementsAre(5, 6));
  EXPECT_THAT(requests[0].stop_ids, ElementsAre(2, 9));
  EXPECT_EQ(requests[0].sampling.seed, 7u);  // as with n = 1
  EXPECT_NE(requests[1].sampling.seed, requests[0].sampling.seed);
  EXPECT_NE(requests[1].sampling.seed, requests[2].sampling.seed);
  EXPECT_EQ(engine_requests(request, {2})[1].sampling.seed, requests[1].sampling.seed);
  request.ignore_eos = true;
  EXPECT_THAT(engine_requests(request, {2})[0].stop_ids, ElementsAre(9));
}

}  // namespace
}  // namespace foe
