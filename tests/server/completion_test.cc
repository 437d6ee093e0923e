#include "server/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json");
  return kTokenizer;
}

// Keeps what was sent.
struct RecordedReply : HttpReply {
  void send(const HttpResponse& response) override { responses.push_back(response); }
  void begin_stream(const std::string& content_type) override { streamed = content_type; }
  void write(std::string_view piece) override { stream += piece; }
  void end() override { ended = true; }
  void when_gone(std::function<void()>) override {}

  // The data of each event, after a check of the framing.
  std::vector<std::string> events() const {
    std::vector<std::string> all;
    std::string left = stream;
    while (!left.empty()) {
      const std::size_t end = left.find("\n\n");
      EXPECT_NE(end, std::string::npos) << left;
      EXPECT_THAT(left, StartsWith("data: "));
      all.push_back(left.substr(6, end - 6));
      EXPECT_EQ(all.back().find('\n'), std::string::npos);
      left.erase(0, end + 2);
    }
    return all;
  }

  std::vector<HttpResponse> responses;
  std::string streamed, stream;
  bool ended = false;
};

struct Exchange {
  std::shared_ptr<RecordedReply> reply = std::make_shared<RecordedReply>();
  Completion completion;

  explicit Exchange(CompletionRequest request)
      : completion({"cmpl-1", "m", 1234}, std::move(request), tokenizer(), reply) {}

  // Gives choice `index` the tokens of `text`, the last one with `finish`. Whether the choice has ended.
  bool take(int index, const std::string& text, std::optional<FinishReason> finish) {
    const auto ids = tokenizer().encode(text);
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (completion.take(index, {1, ids[i], i + 1 == ids.size() ? finish : std::nullopt})) return true;
    return false;
  }
};

CompletionRequest request_of(int prompts, bool stream = false) {
  CompletionRequest request;
  for (int i = 0; i < prompts; ++i) request.prompts.push_back({1, 2, 3});
  request.stream = stream;
  return request;
}

TEST(Completion, AnswersInOnePiece) {
  Exchange exchange(request_of(2));
  EXPECT_TRUE(exchange.take(1, " second", FinishReason::kLength));
  EXPECT_TRUE(exchange.reply->responses.empty());
  EXPECT_TRUE(exchange.take(0, " f\xc3\xbcrst", FinishReason::kLength));
  EXPECT_TRUE(exchange.completion.ended());
  ASSERT_EQ(exchange.reply->responses.size(), 1u);
  EXPECT_EQ(exchange.reply->responses[0].status, 200);
  const std::int64_t tokens = tokenizer().encode(" second").size() + tokenizer().encode(" f\xc3\xbcrst").size();
  const json choice{{"logprobs", nullptr}, {"finish_reason", "length"}};
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

TEST(Completion, StreamsChunksThenDone) {
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

TEST(Completion, StreamsUsageWhenAsked) {
  CompletionRequest request = request_of(1, true);
  request.include_usage = true;
  Exchange exchange(request);
  exchange.take(0, "ab", FinishReason::kLength);
  const std::vector<std::string> events = exchange.reply->events();
  EXPECT_EQ(events.back(), "[DONE]");
  const json usage = json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(usage["usage"]["completion_tokens"], tokenizer().encode("ab").size());
  EXPECT_EQ(json::parse(events[0])["usage"], json(nullptr));
}

TEST(Completion, LeavesTheStopTokenOut) {
  Exchange exchange(request_of(1));
  EXPECT_FALSE(exchange.take(0, "ab", std::nullopt));
  EXPECT_TRUE(exchange.completion.take(0, {1, 5, FinishReason::kStop}));
  const json body = json::parse(exchange.reply->responses.at(0).body);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], tokenizer().encode("ab").size() + 1);
}

TEST(Completion, EndsAtAStopString) {
  for (const bool stream : {false, true}) {
    CompletionRequest request = request_of(1, stream);
    request.stop = {"STOP"};
    Exchange exchange(request);
    EXPECT_TRUE(exchange.take(0, "one STOP two", std::nullopt));
    EXPECT_TRUE(exchange.completion.ended());
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

TEST(Completion, GivesWhatItHeldBackAtTheEnd) {
  CompletionRequest request = request_of(1);
  request.stop = {"STOP"};
  Exchange exchange(request);
  EXPECT_TRUE(exchange.take(0, "one ST", FinishReason::kLength));
  const json choice = json::parse(exchange.reply->responses.at(0).body)["choices"][0];
  EXPECT_EQ(choice["text"], "one ST");
  EXPECT_EQ(choice["finish_reason"], "length");
}

TEST(Completion, FailsWithAStatusOrInTheStream) {
  Exchange whole(request_of(1));
  whole.completion.fail(503, "going down");
  EXPECT_EQ(whole.reply->responses.at(0).status, 503);
  EXPECT_THAT(whole.reply->responses[0].headers, HasSubstr("Retry-After: 1\r\n"));
  const json expected{
      {"error", {{"message", "going down"}, {"type", "ServiceUnavailableError"}, {"param", nullptr}, {"code", 503}}}};
  EXPECT_EQ(json::parse(whole.reply->responses[0].body), expected);
  EXPECT_TRUE(whole.completion.ended());

  Exchange streamed(request_of(1, true));
  streamed.take(0, "ab", std::nullopt);
  streamed.completion.fail(500, "no ranks");
  const std::vector<std::string> events = streamed.reply->events();
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(json::parse(events[events.size() - 2])["error"]["message"], "no ranks");
  EXPECT_TRUE(streamed.reply->ended);
}

TEST(Completion, SaysInTheLogHowItEnded) {
  Exchange exchange(request_of(1));
  exchange.take(0, "ab", std::nullopt);
  exchange.completion.client_left();
  EXPECT_THAT(exchange.completion.summary(), StartsWith("cmpl-1 client left, 3 prompt tokens, "));
}

TEST(ErrorBody, NamesTypeParameterAndCode) {
  const json expected{
      {"error", {{"message", "top_k: no"}, {"type", "BadRequestError"}, {"param", "top_k"}, {"code", 400}}}};
  EXPECT_EQ(json::parse(error_body(400, "top_k: no", "top_k")), expected);
  const std::pair<int, std::string> types[] = {{404, "NotFoundError"},
                                               {405, "MethodNotAllowedError"},
                                               {408, "RequestTimeoutError"},
                                               {413, "RequestEntityTooLargeError"},
                                               {431, "RequestHeaderFieldsTooLargeError"},
                                               {500, "InternalServerError"},
                                               {503, "ServiceUnavailableError"}};
  for (const auto& [status, type] : types) EXPECT_EQ(json::parse(error_body(status, ""))["error"]["type"], type);
  // A message may quote bytes that are no UTF-8.
  EXPECT_EQ(json::parse(error_body(400, "\xff"))["error"]["message"], "\xef\xbf\xbd");
}

TEST(ModelsBody, IsAListOfOne) {
  const json body = json::parse(models_body("m", 5, 64));
  EXPECT_EQ(body["object"], "list");
  ASSERT_EQ(body["data"].size(), 1u);
  EXPECT_EQ(body["data"][0]["id"], "m");
  EXPECT_EQ(body["data"][0]["object"], "model");
  EXPECT_EQ(body["data"][0]["max_model_len"], 64);
}

}  // namespace
}  // namespace foe
