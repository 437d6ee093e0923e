// Replies of OpenAI's Responses API: what clients get of an answer.
#include "server/api/responses_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/recorded_reply.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::MatchesRegex;

GenerationRequest responses_request(bool stream, const ToolUse& tools = {}, const ReasoningUse& reasoning = {}) {
  GenerationRequest request = request_of(Api::kResponses, stream, tools, reasoning);
  request.repeated = R"("store":false,)";
  return request;
}

// Follows the items that a stream tells of, and returns its last response. Each event says again what others have said.
json followed_response(const RecordedReply& reply) {
  json items = json::array(), last;
  std::int64_t number = 0;
  for (const std::string& text : reply.events()) {
    const json event = json::parse(text);
    const std::string type = event["type"];
    EXPECT_EQ(event["sequence_number"], number++);
    EXPECT_TRUE(last.is_null()) << "something after the end";
    if (type == "response.created" || type == "response.in_progress") {
      EXPECT_EQ(number, type == "response.created" ? 1 : 2);
      EXPECT_EQ(event["response"]["status"], "in_progress");
      EXPECT_EQ(event["response"]["output"], json::array());
      continue;
    }
    if (event.contains("response")) {
      last = event["response"];
      EXPECT_EQ(type, "response." + last["status"].get<std::string>());
      continue;
    }
    if (type == "response.output_item.added") {
      EXPECT_EQ(event["output_index"], items.size());
      EXPECT_EQ(event["item"]["status"], "in_progress");
      items.push_back(event["item"]);
      continue;
    }
    EXPECT_EQ(event["output_index"], items.size() - 1);
    json& item = items.back();
    if (type == "response.output_item.done") {
      json expected = item;
      expected["status"] = event["item"]["status"];
      EXPECT_EQ(event["item"], expected);
      item = event["item"];
      continue;
    }
    EXPECT_EQ(event["item_id"], item["id"]);
    if (type == "response.content_part.added") {
      EXPECT_EQ(event["content_index"], item["content"].size());
      item["content"].push_back(event["part"]);
    } else if (type == "response.output_text.delta" || type == "response.reasoning_text.delta") {
      json& part = item["content"][0];
      part["text"] = part["text"].get<std::string>() + event["delta"].get<std::string>();
      if (item["type"] == "reasoning") continue;
      for (const json& report : event["logprobs"]) part["logprobs"].push_back(report);
    } else if (type == "response.output_text.done" || type == "response.reasoning_text.done") {
      EXPECT_EQ(event["text"], item["content"][0]["text"]);
      if (item["type"] == "message") {
        EXPECT_EQ(event["logprobs"], item["content"][0]["logprobs"]);
      }
    } else if (type == "response.content_part.done") {
      EXPECT_EQ(event["part"], item["content"][0]);
    } else if (type == "response.function_call_arguments.delta") {
      item["arguments"] = item["arguments"].get<std::string>() + event["delta"].get<std::string>();
    } else {
      EXPECT_EQ(type, "response.function_call_arguments.done");
      EXPECT_EQ(event["arguments"], item["arguments"]);
      EXPECT_EQ(event["name"], item["name"]);
    }
  }
  EXPECT_EQ(last["output"], items);
  return last;
}

// The answer to a text, which must be the same in one piece and streamed, but for the ids of calls.
json response_of(const std::string& text, FinishReason finish, const ToolUse& tools = {},
                 const ReasoningUse& reasoning = {}) {
  Exchange whole(responses_request(false, tools, reasoning)), streamed(responses_request(true, tools, reasoning));
  json responses[2];
  for (Exchange* exchange : {&whole, &streamed}) {
    if (finish == FinishReason::kStop) {
      exchange->take(0, text, std::nullopt);
      exchange->generation.take(0, {1, 0, finish});
    } else {
      exchange->take(0, text, finish);
    }
    json& response = responses[exchange == &streamed];
    response = exchange == &streamed ? followed_response(*exchange->reply)
                                     : json::parse(exchange->reply->responses.at(0).body);
    for (json& item : response["output"]) {
      if (item["type"] != "function_call") continue;
      EXPECT_THAT(item["call_id"].get<std::string>(), MatchesRegex("call_[A-Za-z0-9]{24}"));
      item.erase("call_id");
    }
  }
  EXPECT_EQ(responses[0], responses[1]);
  return responses[0];
}

json message_item(int index, const std::string& text, const char* status = "completed") {
  return {
      {"id", "msg_1_" + std::to_string(index)},
      {"type", "message"},
      {"status", status},
      {"role", "assistant"},
      {"content",
       json::array(
           {{{"type", "output_text"}, {"text", text}, {"annotations", json::array()}, {"logprobs", json::array()}}})}};
}

json call_item(int index, const std::string& arguments, const char* status = "completed") {
  return {{"id", "fc_1_" + std::to_string(index)},
          {"type", "function_call"},
          {"status", status},
          {"name", "f"},
          {"arguments", arguments}};
}

TEST(ResponsesWriter, GivesAText) {
  const json response = response_of("Hello \xf0\x9f\x98\x80 there", FinishReason::kStop);
  const auto tokens = gpt2_tokenizer().encode("Hello \xf0\x9f\x98\x80 there").size() + 1;
  EXPECT_EQ(response, (json{{"id", "resp_1"},
                            {"object", "response"},
                            {"created_at", 1234},
                            {"status", "completed"},
                            {"background", false},
                            {"error", nullptr},
                            {"incomplete_details", nullptr},
                            {"model", "m"},
                            {"store", false},
                            {"output", json::array({message_item(0, "Hello \xf0\x9f\x98\x80 there")})},
                            {"usage",
                             {{"input_tokens", 3},
                              {"input_tokens_details", {{"cached_tokens", 0}, {"cache_write_tokens", 0}}},
                              {"output_tokens", tokens},
                              {"output_tokens_details", {{"reasoning_tokens", 0}}},
                              {"total_tokens", 3 + tokens}}}}));
  const json cut = response_of("Hello", FinishReason::kLength);
  EXPECT_EQ(cut["status"], "incomplete");
  EXPECT_EQ(cut["incomplete_details"], (json{{"reason", "max_output_tokens"}}));
  EXPECT_EQ(cut["output"], json::array({message_item(0, "Hello", "incomplete")}));
}

TEST(ResponsesWriter, GivesCallsAsItems) {
  const std::string call = R"(<tool_call>{"name": "f", "arguments": {"a": 1.50}}</tool_call>)",
                    arguments = R"({"a": 1.50})";
  const json decided = response_of("Well.\n" + call + call + "Done.", FinishReason::kStop, one_tool(ToolChoice::kAuto));
  EXPECT_EQ(decided["output"], json::array({message_item(0, "Well."), call_item(1, arguments), call_item(2, arguments),
                                            message_item(3, "Done.")}));
  EXPECT_EQ(decided["status"], "completed");
  const json required = response_of(R"([{"name": "f", "parameters": {"a": 1.50}}, {"name": "f", "parameters": {}}])",
                                    FinishReason::kStop, one_tool(ToolChoice::kRequired));
  EXPECT_EQ(required["output"], json::array({call_item(0, arguments), call_item(1, "{}")}));
  const json cut =
      response_of(R"([{"name": "f", "parameters": {"a": 1)", FinishReason::kLength, one_tool(ToolChoice::kRequired));
  EXPECT_EQ(cut["output"], json::array({call_item(0, R"({"a": 1)", "incomplete")}));
}

TEST(ResponsesWriter, GivesReasoningAsAnItem) {
  const ReasoningUse use{reasoning_syntax_for("qwen3", ""), ReasoningStart::kAtMark};
  const json response = response_of("<think>Hm.</think>Well.", FinishReason::kStop, {}, use);
  const json reasoning{{"id", "rs_1_0"},
                       {"type", "reasoning"},
                       {"status", "completed"},
                       {"summary", json::array()},
                       {"content", json::array({{{"type", "reasoning_text"}, {"text", "Hm."}}})}};
  EXPECT_EQ(response["output"], json::array({reasoning, message_item(1, "Well.")}));
  EXPECT_GT(response["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST(ResponsesWriter, ReportsTheTokensOfTexts) {
  for (const bool stream : {false, true}) {
    GenerationRequest request = responses_request(stream);
    request.sampling.logprobs = 1;
    Exchange exchange(request);
    const std::int32_t token = gpt2_tokenizer().encode("a")[0], other = gpt2_tokenizer().encode("b")[0];
    exchange.generation.take(
        0,
        {.id = 1, .token = token, .finish = FinishReason::kLength, .logprobs = LogprobEntry{-1.5f, {{other, -0.5f}}}});
    const json response =
        stream ? followed_response(*exchange.reply) : json::parse(exchange.reply->responses.at(0).body);
    const json& reports = response["output"][0]["content"][0]["logprobs"];
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_EQ(reports[0]["token"], "a");
    EXPECT_EQ(reports[0]["logprob"], -1.5);
    EXPECT_EQ(reports[0]["top_logprobs"][0]["token"], "b");
  }
}

TEST(ResponsesWriter, GivesTheReceiptWithTheWholeResponse) {
  for (const bool stream : {false, true}) {
    const GenerationRequest request = responses_request(stream);
    Exchange exchange(request);
    exchange.generation.give_receipt({}, engine_requests(request, {0}));
    exchange.take(0, "Hi there", FinishReason::kLength);
    const json response =
        stream ? followed_response(*exchange.reply) : json::parse(exchange.reply->responses.at(0).body);
    EXPECT_EQ(response.at("receipt")["choices"][0]["tokens"], json(gpt2_tokenizer().encode("Hi there")));
    if (!stream) continue;
    EXPECT_FALSE(json::parse(exchange.reply->events().front())["response"].contains("receipt"));
  }
}

TEST(ResponsesWriter, SaysThatItFailed) {
  Exchange whole(responses_request(false)), streamed(responses_request(true));
  for (Exchange* exchange : {&whole, &streamed}) {
    exchange->take(0, "Hel", std::nullopt);
    exchange->generation.fail(504, "late");
  }
  EXPECT_EQ(json::parse(whole.reply->responses.at(0).body)["error"]["code"], 504);
  const json event = json::parse(streamed.reply->events().back());
  EXPECT_EQ(event["type"], "response.failed");
  EXPECT_EQ(event["response"]["status"], "failed");
  EXPECT_EQ(event["response"]["error"], (json{{"code", "server_error"}, {"message", "late"}}));
  EXPECT_EQ(event["response"]["output"], json::array({message_item(0, "Hel", "incomplete")}));
  EXPECT_TRUE(streamed.reply->ended);
}

}  // namespace
}  // namespace foe
