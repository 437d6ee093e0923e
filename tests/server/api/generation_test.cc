#include "server/api/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/recorded_reply.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

GenerationRequest request_of(int prompts, bool stream = false) {
  GenerationRequest request;
  for (int i = 0; i < prompts; ++i) request.prompts.push_back({1, 2, 3});
  request.stream = stream;
  return request;
}

TEST(Generation, AnswersInOnePiece) {
  Exchange exchange(request_of(2));
  EXPECT_TRUE(exchange.take(1, " second", FinishReason::kLength));
  EXPECT_TRUE(exchange.reply->responses.empty());
  EXPECT_TRUE(exchange.take(0, " f\xc3\xbcrst", FinishReason::kLength));
  EXPECT_TRUE(exchange.generation.ended());
  ASSERT_EQ(exchange.reply->responses.size(), 1u);
  EXPECT_EQ(exchange.reply->responses[0].status, 200);
  const std::int64_t tokens =
      gpt2_tokenizer().encode(" second").size() + gpt2_tokenizer().encode(" f\xc3\xbcrst").size();
  const json choice{{"logprobs", nullptr},  {"finish_reason", "length"},   {"stop_reason", nullptr},
                    {"token_ids", nullptr}, {"prompt_token_ids", nullptr}, {"prompt_logprobs", nullptr}};
  json first = choice, second = choice;
  first.update({{"index", 0}, {"text", " f\xc3\xbcrst"}});
  second.update({{"index", 1}, {"text", " second"}});
  const json expected{{"id", "cmpl-1"},
                      {"object", "text_completion"},
                      {"created", 1234},
                      {"model", "m"},
                      {"choices", {first, second}},
                      {"usage",
                       {{"prompt_tokens", 6},
                        {"completion_tokens", tokens},
                        {"total_tokens", tokens + 6},
                        {"prompt_tokens_details", {{"cached_tokens", 0}}}}}};
  EXPECT_EQ(json::parse(exchange.reply->responses[0].body), expected);
}

// An answer goes on with the prompt's text: its first space is not the one that SentencePiece puts before any text.
TEST(Generation, KeepsTheSpaceBehindThePrompt) {
  const Tokenizer& llama2 = llama2_tokenizer();
  for (const bool echo : {false, true}) {
    GenerationRequest request = request_of(1);
    request.prompts = {llama2.encode("the mill")};
    request.echo = echo;
    request.stop = {" \u2603"};  // bytes that the vocabulary has no character for
    Exchange exchange(request, llama2);
    const auto ids = llama2.encode("and it \u2603 there", {.add_special_tokens = false});
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (exchange.generation.take(0, {1, ids[i], std::nullopt})) break;
    ASSERT_EQ(exchange.reply->responses.size(), 1u);
    const json choice = json::parse(exchange.reply->responses[0].body)["choices"][0];
    EXPECT_EQ(choice["text"], echo ? "the mill and it" : " and it");
    EXPECT_EQ(choice["stop_reason"], " \u2603");
  }
}

TEST(Generation, StreamsChunksThenDone) {
  Exchange exchange(request_of(1, true));
  EXPECT_EQ(exchange.reply->streamed, "text/event-stream");
  const std::string text = " caf\xc3\xa9 \xf0\x9f\x98\x80 end";
  exchange.take(0, text, FinishReason::kLength);
  EXPECT_TRUE(exchange.reply->ended);
  const std::vector<std::string> events = exchange.reply->events();
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string joined;
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    EXPECT_EQ(chunk["id"], "cmpl-1");
    EXPECT_EQ(chunk["object"], "text_completion");
    EXPECT_FALSE(chunk.contains("usage"));
    ASSERT_EQ(chunk["choices"].size(), 1u);
    EXPECT_EQ(chunk["choices"][0]["index"], 0);
    joined += chunk["choices"][0]["text"].get<std::string>();
    EXPECT_EQ(chunk["choices"][0]["finish_reason"], i + 2 == events.size() ? json("length") : json(nullptr));
  }
  EXPECT_EQ(joined, text);
}

TEST(Generation, StreamsUsageWhenAsked) {
  GenerationRequest request = request_of(1, true);
  request.include_usage = true;
  Exchange exchange(request);
  exchange.take(0, "ab", FinishReason::kLength);
  const std::vector<std::string> events = exchange.reply->events();
  EXPECT_EQ(events.back(), "[DONE]");
  const json usage = json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(usage["usage"]["completion_tokens"], gpt2_tokenizer().encode("ab").size());
  EXPECT_EQ(json::parse(events[0])["usage"], json(nullptr));
}

TEST(Generation, LeavesTheStopTokenOut) {
  Exchange exchange(request_of(1));
  EXPECT_FALSE(exchange.take(0, "ab", std::nullopt));
  EXPECT_TRUE(exchange.generation.take(0, {1, 5, FinishReason::kStop}));
  const json body = json::parse(exchange.reply->responses.at(0).body);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], gpt2_tokenizer().encode("ab").size() + 1);
}

TEST(Generation, EndsAtAStopString) {
  for (const bool stream : {false, true}) {
    GenerationRequest request = request_of(1, stream);
    request.stop = {"STOP"};
    Exchange exchange(request);
    EXPECT_TRUE(exchange.take(0, "one STOP two", std::nullopt));
    EXPECT_TRUE(exchange.generation.ended());
    std::string text, finish;
    if (stream) {
      for (const std::string& event : exchange.reply->events()) {
        if (event == "[DONE]") break;
        const json choice = json::parse(event)["choices"][0];
        text += choice["text"].get<std::string>();
        if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
      }
    } else {
      const json choice = json::parse(exchange.reply->responses.at(0).body)["choices"][0];
      text = choice["text"];
      finish = choice["finish_reason"];
    }
    EXPECT_EQ(text, "one ");
    EXPECT_EQ(finish, "stop");
  }
}

TEST(Generation, GivesWhatItHeldBackAtTheEnd) {
  GenerationRequest request = request_of(1);
  request.stop = {"STOP"};
  Exchange exchange(request);
  EXPECT_TRUE(exchange.take(0, "one ST", FinishReason::kLength));
  const json choice = json::parse(exchange.reply->responses.at(0).body)["choices"][0];
  EXPECT_EQ(choice["text"], "one ST");
  EXPECT_EQ(choice["finish_reason"], "length");
}

TEST(Generation, FailsWithAStatusOrInTheStream) {
  Exchange whole(request_of(1));
  whole.generation.fail(503, "going down");
  EXPECT_EQ(whole.reply->responses.at(0).status, 503);
  EXPECT_THAT(whole.reply->responses[0].headers, HasSubstr("Retry-After: 1\r\n"));
  const json expected{
      {"error", {{"message", "going down"}, {"type", "ServiceUnavailableError"}, {"param", nullptr}, {"code", 503}}}};
  EXPECT_EQ(json::parse(whole.reply->responses[0].body), expected);
  EXPECT_TRUE(whole.generation.ended());

  Exchange streamed(request_of(1, true));
  streamed.take(0, "ab", std::nullopt);
  streamed.generation.fail(500, "no ranks");
  const std::vector<std::string> events = streamed.reply->events();
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(json::parse(events[events.size() - 2])["error"]["message"], "no ranks");
  EXPECT_TRUE(streamed.reply->ended);
}

json choice_of(const Exchange& exchange) {
  return json::parse(exchange.reply->responses.at(0).body)["choices"][0];
}

TEST(Generation, SaysWhatStoppedIt) {
  GenerationRequest request = request_of(1);
  request.stop = {"STOP"};
  request.stop_ids = {5};
  {
    Exchange exchange(request);
    exchange.take(0, "one STOP", std::nullopt);
    EXPECT_EQ(choice_of(exchange)["stop_reason"], "STOP");
  }
  {
    Exchange exchange(request);
    exchange.generation.take(0, {1, 5, FinishReason::kStop});
    EXPECT_EQ(choice_of(exchange)["stop_reason"], 5);
  }
  {
    request.include_stop = true;
    Exchange exchange(request);
    exchange.take(0, "one STOP two", std::nullopt);
    EXPECT_EQ(choice_of(exchange)["text"], "one STOP");
  }
}

TEST(Generation, LooksForStopStringsBehindTheFewestTokens) {
  GenerationRequest request = request_of(1);
  request.stop = {"a"};
  request.sampling.min_tokens = 2;
  Exchange exchange(request);
  EXPECT_FALSE(exchange.take(0, "a", std::nullopt));
  EXPECT_FALSE(exchange.take(0, "a", std::nullopt));
  EXPECT_TRUE(exchange.take(0, "a", std::nullopt));
  EXPECT_EQ(choice_of(exchange)["text"], "aa");
}

TEST(Generation, CountsChoicesOfAPromptAndCachedTokensOnce) {
  GenerationRequest request = request_of(1);
  request.n = 2;
  Exchange exchange(request);
  for (int i = 0; i < 2; ++i)
    exchange.generation.take(i, {.id = 1, .token = 7, .finish = FinishReason::kLength, .cached_tokens = 2});
  const json usage = json::parse(exchange.reply->responses.at(0).body)["usage"];
  EXPECT_EQ(usage["prompt_tokens"], 3);
  EXPECT_EQ(usage["completion_tokens"], 2);
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST(Generation, ReportsLogprobsWithEcho) {
  GenerationRequest request = request_of(0);
  request.prompts = {gpt2_tokenizer().encode("ab c")};
  request.echo = true;
  request.sampling.logprobs = request.sampling.prompt_logprobs = 1;
  const std::vector<std::int32_t> ids = request.prompts[0].tokens();
  ASSERT_GE(ids.size(), 2u);
  for (const bool stream : {false, true}) {
    request.stream = stream;
    Exchange exchange(request);
    TokenEvent event{.id = 1, .token = ids[0], .finish = FinishReason::kLength};
    event.logprobs = LogprobEntry{-0.5f, {{ids[1], -0.25f}}};
    for (std::size_t i = 1; i < ids.size(); ++i) event.prompt.push_back({-1.0f * i, {{ids[0], -0.125f}}});
    EXPECT_TRUE(exchange.generation.take(0, event));
    const json choice = stream ? json::parse(exchange.reply->events().at(0))["choices"][0] : choice_of(exchange);
    EXPECT_EQ(choice["text"], "ab c" + gpt2_tokenizer().decode({&ids[0], 1}));
    const json& logprobs = choice["logprobs"];
    ASSERT_EQ(logprobs["tokens"].size(), ids.size() + 1);
    EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
    EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
    EXPECT_EQ(logprobs["token_logprobs"][1], -1.0);
    EXPECT_EQ(logprobs["token_logprobs"].back(), -0.5);
    EXPECT_EQ(logprobs["text_offset"].back(), 4);
    EXPECT_EQ(logprobs["top_logprobs"].back()[gpt2_tokenizer().decode({&ids[1], 1})], -0.25);
    std::string joined;
    for (const json& token : logprobs["tokens"]) joined += token.get<std::string>();
    EXPECT_EQ(joined, choice["text"]);
  }
}

TEST(Generation, ReportsIdsWhenAsked) {
  for (const bool stream : {false, true}) {
    GenerationRequest request = request_of(1, stream);
    request.return_ids = request.tokens_as_ids = true;
    request.sampling.logprobs = 1;
    Exchange exchange(request);
    const std::vector<std::int32_t> ids{5, 6};
    exchange.generation.take(0, {1, ids[0], std::nullopt, 0, LogprobEntry{-1.0f, {{7, -0.5f}}}});
    exchange.generation.take(0, {1, ids[1], FinishReason::kLength, 0, LogprobEntry{-2.0f, {}}});
    std::vector<json> choices;
    if (stream)
      for (const std::string& event : exchange.reply->events()) {
        if (event != "[DONE]") choices.push_back(json::parse(event)["choices"][0]);
      }
    else
      choices.push_back(json::parse(exchange.reply->responses.at(0).body)["choices"][0]);
    std::vector<std::int32_t> reported;
    for (const json& choice : choices)
      for (const json& id : choice["token_ids"]) reported.push_back(id);
    EXPECT_EQ(reported, ids);
    EXPECT_EQ(choices.front()["prompt_token_ids"], json({1, 2, 3}));
    EXPECT_EQ(choices.back().contains("prompt_token_ids"), !stream || choices.size() == 1);
    EXPECT_EQ(choices.back().contains("prompt_logprobs"), !stream);  // null, as vLLM has it
    EXPECT_EQ(choices.front()["logprobs"]["tokens"][0], "token_id:5");
    EXPECT_EQ(choices.front()["logprobs"]["top_logprobs"][0]["token_id:7"], -0.5);
  }
}

// As vLLM answers: those of the prompt are beside the choices, in a stream in the first chunk.
TEST(Generation, ReportsTheIdsOfAChat) {
  for (const bool stream : {false, true}) {
    GenerationRequest request = request_of(1, stream);
    request.api = Api::kChat;
    request.return_ids = true;
    Exchange exchange(request);
    exchange.generation.take(0, {1, 5, FinishReason::kLength});
    const json first = json::parse(stream ? exchange.reply->events().at(0) : exchange.reply->responses.at(0).body);
    const json last = stream ? json::parse(exchange.reply->events().at(1)) : first;
    EXPECT_EQ(first["prompt_token_ids"], json({1, 2, 3}));
    EXPECT_EQ(last.contains("prompt_token_ids"), !stream);
    EXPECT_EQ(last["choices"][0]["token_ids"], json({5}));
    EXPECT_FALSE(last["choices"][0].contains("prompt_token_ids"));
  }
}

// By the token's id, the token of the prompt first, with its rank.
TEST(Generation, ReportsThePromptsLogprobs) {
  for (const Api api : {Api::kCompletions, Api::kChat}) {
    GenerationRequest request = request_of(1);
    request.api = api;
    request.prompt_logprobs = request.sampling.prompt_logprobs = 1;
    Exchange exchange(request);
    TokenEvent event{.id = 1, .token = 5, .finish = FinishReason::kLength};
    event.prompt = {{-2.0f, {{9, -0.5f}}, 4}, {-0.25f, {{3, -0.25f}}, 1}};
    exchange.generation.take(0, event);
    const json body = json::parse(exchange.reply->responses.at(0).body);
    const json& places = api == Api::kChat ? body["prompt_logprobs"] : body["choices"][0]["prompt_logprobs"];
    const auto name = [](std::int32_t id) { return gpt2_tokenizer().decode({&id, 1}); };
    const json expected{nullptr,
                        {{"2", {{"logprob", -2.0}, {"rank", 4}, {"decoded_token", name(2)}}},
                         {"9", {{"logprob", -0.5}, {"rank", 1}, {"decoded_token", name(9)}}}},
                        {{"3", {{"logprob", -0.25}, {"rank", 1}, {"decoded_token", name(3)}}}}};
    EXPECT_EQ(places, expected);
  }
}

TEST(Generation, ReportsUsageInEveryChunkWhenAsked) {
  GenerationRequest request = request_of(1, true);
  request.api = Api::kChat;
  request.include_usage = request.usage_in_chunks = true;
  Exchange exchange(request);
  exchange.generation.take(0, {1, gpt2_tokenizer().encode("a")[0], std::nullopt});
  exchange.generation.take(0, {1, gpt2_tokenizer().encode("b")[0], FinishReason::kLength});
  std::vector<int> counts;
  for (const std::string& event : exchange.reply->events()) {
    if (event == "[DONE]") continue;
    const json usage = json::parse(event)["usage"];
    EXPECT_EQ(usage["prompt_tokens"], 3);
    counts.push_back(usage["completion_tokens"]);
    EXPECT_EQ(usage["total_tokens"], 3 + counts.back());
  }
  EXPECT_EQ(counts, (std::vector<int>{0, 1, 2, 2}));
}

TEST(Generation, GivesOnlyThePromptForNoTokens) {
  GenerationRequest request = request_of(0);
  request.prompts = {gpt2_tokenizer().encode("ab c")};
  request.echo = true;
  request.max_tokens = 0;
  Exchange exchange(request);
  EXPECT_TRUE(exchange.generation.take(0, {1, 7, FinishReason::kLength}));
  EXPECT_EQ(choice_of(exchange)["text"], "ab c");
  EXPECT_EQ(choice_of(exchange)["finish_reason"], "length");
  EXPECT_EQ(json::parse(exchange.reply->responses.at(0).body)["usage"]["completion_tokens"], 0);
}

TEST(Generation, AnswersChats) {
  GenerationRequest request = request_of(1);
  request.api = Api::kChat;
  request.sampling.logprobs = 1;
  const std::int32_t id = gpt2_tokenizer().encode("h")[0];
  TokenEvent event{.id = 1, .token = id, .finish = FinishReason::kLength};
  event.logprobs = LogprobEntry{-0.5f, {{id, -0.5f}}};
  {
    Exchange exchange(request);
    exchange.generation.take(0, event);
    const json body = json::parse(exchange.reply->responses.at(0).body);
    EXPECT_EQ(body["object"], "chat.completion");
    const json token{{"token", "h"}, {"logprob", -0.5}, {"bytes", {104}}};
    json content = token;
    content["top_logprobs"] = json::array({token});
    const json expected{{"index", 0},
                        {"message", {{"role", "assistant"}, {"content", "h"}}},
                        {"logprobs", {{"content", json::array({content})}}},
                        {"finish_reason", "length"},
                        {"token_ids", nullptr},
                        {"stop_reason", nullptr}};
    EXPECT_EQ(body["choices"], json::array({expected}));
  }
  request.stream = true;
  Exchange exchange(request);
  exchange.generation.take(0, event);
  const std::vector<std::string> events = exchange.reply->events();
  ASSERT_EQ(events.size(), 3u);
  const json first = json::parse(events[0]), second = json::parse(events[1]);
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"], (json{{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(second["choices"][0]["delta"], (json{{"content", "h"}}));
  EXPECT_EQ(second["choices"][0]["finish_reason"], "length");
}

// Two tokens of one character: neither is text by itself, and their names differ.
TEST(Generation, NamesTokensThatAreNoTextByTheirBytes) {
  std::vector<std::int32_t> ids = gpt2_tokenizer().encode("\xf0\x9f\x98\x80");
  ASSERT_GE(ids.size(), 2u);
  GenerationRequest request = request_of(1);
  request.sampling.logprobs = 0;
  Exchange exchange(request);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    TokenEvent event{.id = 1, .token = ids[i]};
    if (i + 1 == ids.size()) event.finish = FinishReason::kLength;
    event.logprobs = LogprobEntry{-1.0f, {}};
    exchange.generation.take(0, event);
  }
  EXPECT_EQ(choice_of(exchange)["text"], "\xf0\x9f\x98\x80");
  EXPECT_THAT(choice_of(exchange)["logprobs"]["tokens"][0].get<std::string>(), StartsWith("bytes:\\xf0"));
}

TEST(Generation, SaysInTheLogHowItEnded) {
  Exchange exchange(request_of(1));
  exchange.take(0, "ab", std::nullopt);
  exchange.generation.client_left();
  EXPECT_THAT(exchange.generation.summary(), StartsWith("cmpl-1 client left, 3 prompt tokens, "));
}

}  // namespace
}  // namespace foe
