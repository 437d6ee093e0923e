// Replies of Anthropic's Messages API: what clients get of an answer.
#include "server/api/messages_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/recorded_reply.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::MatchesRegex;

GenerationRequest messages_request(bool stream, const ToolUse& tools = {}, const ReasoningUse& reasoning = {}) {
  GenerationRequest request = request_of(Api::kMessages, stream, tools, reasoning);
  request.stop = {"STOP"};
  return request;
}

// Joins a stream to the message that it tells of, and checks the order of its events.
json joined_message(const RecordedReply& reply) {
  const std::vector<std::string> events = reply.events();
  json message = json::parse(events.at(0))["message"];
  EXPECT_EQ(message["content"], json::array());
  EXPECT_EQ(message["stop_reason"], nullptr);
  EXPECT_EQ(message["usage"]["input_tokens"], 3);
  EXPECT_EQ(json::parse(events.at(1)), (json{{"type", "ping"}}));
  std::string input;
  bool open = false;
  for (std::size_t i = 2; i + 2 < events.size(); ++i) {
    const json event = json::parse(events[i]);
    json& content = message["content"];
    if (event["type"] == "content_block_start") {
      EXPECT_FALSE(std::exchange(open, true));
      EXPECT_EQ(event["index"], content.size());
      content.push_back(event["content_block"]);
      input.clear();
    } else if (event["type"] == "content_block_delta") {
      EXPECT_TRUE(open);
      EXPECT_EQ(event["index"], content.size() - 1);
      const json& delta = event["delta"];
      if (delta["type"] == "input_json_delta") {
        input += delta["partial_json"].get<std::string>();
        continue;
      }
      const std::string type = delta["type"], name = type.substr(0, type.find('_'));  // as thinking_delta
      content.back()[name] = content.back()[name].get<std::string>() + delta[name].get<std::string>();
    } else {
      EXPECT_EQ(event, (json{{"type", "content_block_stop"}, {"index", content.size() - 1}}));
      EXPECT_TRUE(std::exchange(open, false));
      const json parsed = json::parse(input, nullptr, false);
      if (parsed.is_object()) content.back()["input"] = parsed;
    }
  }
  EXPECT_FALSE(open);
  const json delta = json::parse(events.at(events.size() - 2));
  EXPECT_EQ(delta["type"], "message_delta");
  message.update(delta["delta"]);
  message["usage"] = delta["usage"];
  EXPECT_EQ(json::parse(events.back()), (json{{"type", "message_stop"}}));
  return message;
}

// The answer to a text, which must be the same in one piece and streamed, but for the ids of calls.
json message_of(const std::string& text, FinishReason finish, const ToolUse& tools = {},
                const ReasoningUse& reasoning = {}) {
  Exchange whole(messages_request(false, tools, reasoning)), streamed(messages_request(true, tools, reasoning));
  json messages[2];
  for (Exchange* exchange : {&whole, &streamed}) {
    if (finish == FinishReason::kStop) {
      if (!exchange->take(0, text, std::nullopt)) exchange->generation.take(0, {1, 0, finish});
    } else {
      exchange->take(0, text, finish);
    }
    json& message = messages[exchange == &streamed];
    message =
        exchange == &streamed ? joined_message(*exchange->reply) : json::parse(exchange->reply->responses.at(0).body);
    for (json& block : message["content"]) {
      if (block["type"] != "tool_use") continue;
      EXPECT_THAT(block["id"].get<std::string>(), MatchesRegex("call_[A-Za-z0-9]{24}"));
      block.erase("id");
    }
  }
  EXPECT_EQ(messages[0], messages[1]);
  return messages[0];
}

json text_block(const std::string& text) {
  return {{"type", "text"}, {"text", text}};
}

json call_block(const json& input) {
  return {{"type", "tool_use"}, {"name", "f"}, {"input", input}};
}

TEST(MessagesWriter, GivesAText) {
  const json message = message_of("Hello \xf0\x9f\x98\x80 there", FinishReason::kStop);
  const auto tokens = gpt2_tokenizer().encode("Hello \xf0\x9f\x98\x80 there").size() + 1;
  EXPECT_EQ(message, (json{{"id", "cmpl-1"},
                           {"type", "message"},
                           {"role", "assistant"},
                           {"model", "m"},
                           {"content", {text_block("Hello \xf0\x9f\x98\x80 there")}},
                           {"stop_reason", "end_turn"},
                           {"stop_sequence", nullptr},
                           {"usage",
                            {{"input_tokens", 3},
                             {"cache_creation_input_tokens", 0},
                             {"cache_read_input_tokens", 0},
                             {"output_tokens", tokens}}}}));
  EXPECT_EQ(message_of("Hello", FinishReason::kLength)["stop_reason"], "max_tokens");
  const json stopped = message_of("Hello STOP there", FinishReason::kStop);
  EXPECT_EQ(stopped["content"], json::array({text_block("Hello ")}));
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "STOP");
}

TEST(MessagesWriter, SaysWhatWasCached) {
  Exchange exchange(messages_request(false));
  exchange.generation.take(0, {.id = 1, .token = 70, .finish = FinishReason::kLength, .cached_tokens = 2});
  const json usage = json::parse(exchange.reply->responses.at(0).body)["usage"];
  EXPECT_EQ(usage["input_tokens"], 1);
  EXPECT_EQ(usage["cache_read_input_tokens"], 2);
}

TEST(MessagesWriter, GivesCallsAsBlocks) {
  const std::string call = R"(<tool_call>{"name": "f", "arguments": {"a": 1.50}}</tool_call>)";
  // The input is as the model has written it.
  Exchange exchange(messages_request(false, one_tool(ToolChoice::kAuto)));
  exchange.take(0, call, FinishReason::kLength);
  EXPECT_THAT(exchange.reply->responses.at(0).body, HasSubstr(R"("input":{"a": 1.50}})"));

  const std::string small = R"(<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>)";
  const json message =
      message_of("Well.\n" + small + small + "Done.", FinishReason::kStop, one_tool(ToolChoice::kAuto));
  EXPECT_EQ(message["content"],
            json::array({text_block("Well."), call_block({{"a", 1}}), call_block({{"a", 1}}), text_block("Done.")}));
  EXPECT_EQ(message["stop_reason"], "tool_use");
  EXPECT_EQ(message_of("No call.", FinishReason::kStop, one_tool(ToolChoice::kAuto))["stop_reason"], "end_turn");
}

TEST(MessagesWriter, GivesRequiredCalls) {
  const json two = message_of(R"([{"name": "f", "parameters": {"a": "}"}}, {"name": "f", "parameters": {}}])",
                              FinishReason::kStop, one_tool(ToolChoice::kRequired));
  EXPECT_EQ(two["content"], json::array({call_block({{"a", "}"}}), call_block(json::object())}));
  EXPECT_EQ(two["stop_reason"], "tool_use");
  // That of the one named tool ends so, too.
  const json named = message_of(R"({"a": 1})", FinishReason::kStop, one_tool(ToolChoice::kNamed));
  EXPECT_EQ(named["content"], json::array({call_block({{"a", 1}})}));
  EXPECT_EQ(named["stop_reason"], "tool_use");
  // A call that was cut is there, and the answer says that it was cut. A whole answer has no place for half of an
  // input.
  const json cut =
      message_of(R"([{"name": "f", "parameters": {"a": 1)", FinishReason::kLength, one_tool(ToolChoice::kRequired));
  EXPECT_EQ(cut["content"], json::array({call_block(json::object())}));
  EXPECT_EQ(cut["stop_reason"], "max_tokens");
}

TEST(MessagesWriter, GivesReasoningAsABlock) {
  const ReasoningUse use{reasoning_syntax_for("qwen3", ""), ReasoningStart::kAtMark};
  const std::string call = R"(<tool_call>{"name": "f", "arguments": {}}</tool_call>)";
  const json message =
      message_of("<think>Hm.</think>Well." + call, FinishReason::kStop, one_tool(ToolChoice::kAuto), use);
  EXPECT_EQ(message["content"], json::array({{{"type", "thinking"}, {"thinking", "Hm."}, {"signature", "cmpl-1"}},
                                             text_block("Well."),
                                             call_block(json::object())}));
  EXPECT_GT(message["usage"]["output_tokens_details"]["thinking_tokens"], 0);
}

TEST(MessagesWriter, GivesTheReceiptAtTheEnd) {
  json receipts[2];
  for (const bool stream : {false, true}) {
    const GenerationRequest request = messages_request(stream);
    Exchange exchange(request);
    exchange.generation.give_receipt({}, engine_requests(request, {0}));
    exchange.take(0, "Hi there", FinishReason::kLength);
    const std::vector<std::string> events = exchange.reply->events();
    for (const std::string& event : events)
      EXPECT_EQ(json::parse(event).contains("receipt"), event == *(events.end() - 2));
    receipts[stream] =
        json::parse(stream ? *(events.end() - 2) : exchange.reply->responses.at(0).body).value("receipt", json());
  }
  EXPECT_EQ(receipts[0]["choices"][0]["tokens"], json(gpt2_tokenizer().encode("Hi there")));
  EXPECT_EQ(receipts[0]["choices"], receipts[1]["choices"]);
}

TEST(MessagesWriter, EndsWithAnErrorInAnthropicsForm) {
  const json expected{{"type", "error"}, {"error", {{"type", "timeout_error"}, {"message", "late"}}}};
  Exchange whole(messages_request(false)), streamed(messages_request(true));
  for (Exchange* exchange : {&whole, &streamed}) {
    exchange->take(0, "Hel", std::nullopt);
    exchange->generation.fail(504, "late");
  }
  EXPECT_EQ(json::parse(whole.reply->responses.at(0).body), expected);
  EXPECT_EQ(whole.reply->responses.at(0).status, 504);
  EXPECT_EQ(json::parse(streamed.reply->events().back()), expected);
  EXPECT_TRUE(streamed.reply->ended);
}

}  // namespace
}  // namespace foe
