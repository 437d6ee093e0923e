#include "load/completion_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace foe {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> events_of(std::initializer_list<std::string_view> pieces, std::size_t limit = 1000) {
  SseParser parser(limit);
  std::vector<std::string> events;
  for (const std::string_view piece : pieces)
    if (!parser.feed(piece, [&](std::string_view data) { events.emplace_back(data); })) events.emplace_back("TOO LONG");
  return events;
}

TEST(Sse, EventsInPiecesCutAnywhere) {
  const std::string stream =
      ": a comment\n\ndata: one\n\nevent: x\nid: 3\ndata:two\ndata: lines\nretry: 5\n\ndata\n\n\r\ndata: three\r\n\r\n"
      "data: f\rdata: our\r\rdata: unfinished\n";
  const auto expected = ElementsAre("one", "two\nlines", "", "three", "f\nour");
  EXPECT_THAT(events_of({stream}), expected);
  for (std::size_t a = 0; a <= stream.size(); ++a)
    for (std::size_t b = a; b <= stream.size(); ++b) {
      const std::string_view all = stream;
      ASSERT_THAT(events_of({all.substr(0, a), all.substr(a, b - a), all.substr(b)}), expected) << a << " " << b;
    }
}

TEST(Sse, EventsAreBounded) {
  const std::string nine(9, 'x');
  EXPECT_THAT(events_of({"data: 123\n\n", "data: 456\n\n"}, 9), ElementsAre("123", "456"));
  EXPECT_THAT(events_of({nine}, 9), ElementsAre());
  EXPECT_THAT(events_of({nine, "x"}, 9), ElementsAre("TOO LONG"));
  EXPECT_THAT(events_of({"data: 123\ndata: 45\n"}, 9), ElementsAre("TOO LONG"));
}

std::string event(const std::string& json) {
  return "data: " + json + "\n\n";
}
std::string token(const std::string& text, const std::string& finish = "null") {
  return event(R"({"choices": [{"index": 0, "text": ")" + text + R"(", "finish_reason": )" + finish + "}]}");
}

// Feeds a piece each second, from 1 s on.
Completion complete(const std::vector<std::string>& pieces, int status = 200, const std::string& error = "") {
  CompletionStream stream;
  double at = 0;
  std::string refused;
  for (const std::string& piece : pieces)
    if (refused.empty()) refused = stream.feed(status, piece, ++at);
  return stream.finish(status, refused.empty() ? error : refused, "7");
}

TEST(CompletionStream, TimesAndUsage) {
  const Completion c =
      complete({token("a"), token("b") + token("c"), "data: ", "{}\n\n", token("", R"("length")"),
                event(R"({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}})"), event("[DONE]")});
  EXPECT_EQ(c.error, "");
  EXPECT_EQ(c.status, 200);
  EXPECT_EQ(c.ttft, 1);
  EXPECT_EQ(c.latency, 5);
  EXPECT_THAT(c.itls, ElementsAre(1, 0, 3));
  EXPECT_EQ(c.chunks, 4);
  EXPECT_EQ(c.prompt_tokens, 5);
  EXPECT_EQ(c.output_tokens(), 9);
}

TEST(CompletionStream, CountsEventsWithoutUsage) {
  const Completion c = complete({token("a"), token("b"), event("[DONE]")});
  EXPECT_TRUE(c.ok());
  EXPECT_EQ(c.completion_tokens, std::nullopt);
  EXPECT_EQ(c.output_tokens(), 2);
  // Usage that no count can be is as good as none.
  for (const char* bad : {"-1", "1e99", "\"5\"", "null", "99999999999"}) {
    const std::string usage = std::string(R"({"choices": [], "usage": {"completion_tokens": )") + bad + "}}";
    EXPECT_EQ(complete({token("a"), event(usage), event("[DONE]")}).output_tokens(), 1) << bad;
  }
}

TEST(CompletionStream, ARoleIsNoToken) {
  const auto delta = [](const std::string& fields) { return event(R"({"choices": [{"delta": {)" + fields + "}}]}"); };
  const Completion c = complete({delta(R"("role": "assistant", "content": "")"), delta(R"("content": "Hi")"),
                                 delta(R"("role": "assistant", "content": "!")"), event("[DONE]")});
  EXPECT_EQ(c.error, "");
  EXPECT_EQ(c.ttft, 2);
  EXPECT_EQ(c.chunks, 2);
}

std::string text_of(const std::string& stream, bool keep = true) {
  CompletionStream parser(keep);
  parser.feed(200, stream, 1);
  return parser.finish(200, "", "").text;
}

TEST(CompletionStream, KeepsTextsIfAsked) {
  const std::string stream = token("a") + token("\\u00e4\\n") + token("", R"("stop")");
  EXPECT_EQ(text_of(stream), "a\u00e4\n");
  EXPECT_EQ(text_of(stream, false), "");
  EXPECT_EQ(text_of(event(R"({"choices": [{"delta": {"role": "assistant", "content": "Hi"}}]})") +
                    event(R"({"choices": [{"delta": {"content": null, "tool_calls": []}}]})") +
                    event(R"({"choices": [{"index": 1, "delta": {"content": "other"}}]})") +
                    event(R"({"choices": [{"index": 0, "delta": {"content": "!"}}]})")),
            "Hi!");
  CompletionStream endless(true);
  std::string error;
  for (int i = 0; i < 100 && error.empty(); ++i) error = endless.feed(200, token(std::string(500'000, 'x')), 1);
  EXPECT_EQ(error, "expected a text of at most 16 MiB, got a longer one");
}

TEST(CompletionStream, WhatIsNoAnswer) {
  const std::string done = event("[DONE]");
  EXPECT_THAT(complete({token("a")}).error, HasSubstr("without a finish_reason"));
  EXPECT_THAT(complete({token("a")}, 200, "the reply broke off").error, HasSubstr("broke off"));
  EXPECT_THAT(complete({}).error, HasSubstr("without a finish_reason"));
  EXPECT_THAT(complete({done}).error, HasSubstr("no tokens"));
  EXPECT_THAT(complete({token("a"), event(R"({"error": {"message": "out of\nluck"}})"), done}).error, "out of luck");
  for (const char* bad : {"{", "3", "\xff", "[]", "null", "\"text\""})
    EXPECT_THAT(complete({token("a"), event(bad), done}).error, HasSubstr("expected a JSON object")) << bad;
  for (const char* odd : {R"({"choices": 3})", R"({"choices": {}})", R"({"usage": []})", "{}"})
    EXPECT_EQ(complete({token("a"), event(odd), done}).chunks, 1) << odd;
  for (const char* odd : {R"({"choices": [3]})", R"({"choices": [{"delta": 3, "finish_reason": 4}]})"})
    EXPECT_EQ(complete({event(odd), done}).error, "") << odd;
  EXPECT_THAT(complete({event(std::string(500'000, '['))}).error, HasSubstr("expected a JSON object"));
  EXPECT_THAT(complete({"data: " + std::string(2 << 20, 'x')}).error, HasSubstr("1 MiB"));
}

TEST(CompletionStream, StatusesAreErrors) {
  const Completion busy = complete({R"({"error": {"message": "the qu)", R"(eue is full", "code": 503}})"}, 503);
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ(busy.error, "status 503: the queue is full");
  EXPECT_EQ(busy.retry_after, "7");
  EXPECT_EQ(complete({"<html>\n"}, 502).error, "status 502: <html> ");
  EXPECT_LT(complete(std::vector<std::string>(100, std::string(1000, 'x')), 500).error.size(), 200u);
  EXPECT_EQ(complete({}, 0, "cannot connect").error, "cannot connect");
}

}  // namespace
}  // namespace foe
