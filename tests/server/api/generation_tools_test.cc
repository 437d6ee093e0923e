// Answers that call tools: what clients get of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "grammar/walk.h"
#include "server/api/recorded_reply.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::MatchesRegex;

const std::string kCalls =
    R"([{"name": "f", "parameters": {"a": "}]\"", "b": [{}]}}, {"name":"name","parameters": {}}])";

GenerationRequest request_with_tools(ToolChoice choice, bool stream, int n = 1) {
  GenerationRequest request;
  request.api = Api::kChat;
  request.prompts.push_back({1, 2, 3});
  request.n = n;
  request.stream = stream;
  request.tools = {.choice = choice, .names = {"f", "name"}};
  if (choice == ToolChoice::kNamed) request.tools.names = {"f"};
  return request;
}

// Joins the deltas of each choice to what a whole answer has, and checks their form.
json joined_choices(const RecordedReply& reply) {
  json choices = json::array();
  for (const std::string& event : reply.events()) {
    if (event == "[DONE]") break;
    const json chunk = json::parse(event), choice = chunk["choices"][0], delta = choice["delta"];
    const std::size_t index = choice["index"];
    if (choices.size() <= index) choices.push_back({{"content", ""}, {"calls", json::array()}});
    json& whole = choices[index];
    EXPECT_FALSE(whole.contains("finish_reason"));
    whole["content"] = whole["content"].get<std::string>() + delta.value("content", "");
    for (const json& piece : delta.value("tool_calls", json::array())) {
      json& calls = whole["calls"];
      const json& function = piece["function"];
      if (piece.contains("id")) {
        EXPECT_EQ(piece["index"], calls.size());
        EXPECT_EQ(piece["type"], "function");
        EXPECT_THAT(piece["id"].get<std::string>(), MatchesRegex("call_[A-Za-z0-9]{24}"));
        calls.push_back({{"name", function["name"]}, {"arguments", ""}});
      } else {
        EXPECT_EQ(piece["index"], calls.size() - 1);
        EXPECT_FALSE(function.contains("name"));
        EXPECT_NE(function["arguments"], "");
      }
      calls.back()["arguments"] =
          calls.back()["arguments"].get<std::string>() + function["arguments"].get<std::string>();
    }
    if (!choice["finish_reason"].is_null()) whole["finish_reason"] = choice["finish_reason"];
  }
  return choices;
}

// The same of a whole answer.
json choices_of(const RecordedReply& reply) {
  json choices = json::array();
  const json body = json::parse(reply.responses.at(0).body);
  for (const json& choice : body["choices"]) {
    json calls = json::array();
    EXPECT_NE(choice["message"].value("tool_calls", json()), json::array());
    for (const json& call : choice["message"].value("tool_calls", json::array())) {
      EXPECT_EQ(call.size(), 3u);
      EXPECT_EQ(call["type"], "function");
      EXPECT_THAT(call["id"].get<std::string>(), MatchesRegex("call_[A-Za-z0-9]{24}"));
      calls.push_back({{"name", call["function"]["name"]}, {"arguments", call["function"]["arguments"]}});
    }
    choices.push_back(
        {{"content", choice["message"]["content"]}, {"calls", calls}, {"finish_reason", choice["finish_reason"]}});
  }
  return choices;
}

// Gives a choice its whole text and its end: a token that is no text, unless it is cut.
void take_all(Exchange& exchange, int index, const std::string& text, FinishReason finish) {
  if (finish == FinishReason::kLength) {
    exchange.take(index, text, finish);
    return;
  }
  exchange.take(index, text, std::nullopt);
  exchange.generation.take(index, {1, 0, finish});
}

// The answer to `text`, which must be the same in one piece and streamed.
json answer_of(ToolChoice choice, const std::string& text, FinishReason finish) {
  Exchange whole(request_with_tools(choice, false)), streamed(request_with_tools(choice, true));
  take_all(whole, 0, text, finish);
  take_all(streamed, 0, text, finish);
  const json result = choices_of(*whole.reply);
  EXPECT_EQ(joined_choices(*streamed.reply), result);
  return result[0];
}

TEST(GenerationTools, GivesRequiredCalls) {
  const json calls{{{"name", "f"}, {"arguments", R"({"a": "}]\"", "b": [{}]})"}},
                   {{"name", "name"}, {"arguments", "{}"}}};
  EXPECT_EQ(answer_of(ToolChoice::kRequired, kCalls, FinishReason::kStop),
            (json{{"content", ""}, {"calls", calls}, {"finish_reason", "tool_calls"}}));
}

// Whatever has come of a call is there, and the answer says that it was cut.
TEST(GenerationTools, SaysWhereACallWasCut) {
  const auto cut = [](std::size_t end) {
    return answer_of(ToolChoice::kRequired, kCalls.substr(0, end), FinishReason::kLength);
  };
  for (std::size_t end = 1; end <= kCalls.size(); ++end) {
    const json answer = cut(end);
    EXPECT_EQ(answer["finish_reason"], "length");
    const std::size_t arguments = 29, first_end = 53;
    if (end < kCalls.find("\", \"parameters\"") + 1) {
      EXPECT_EQ(answer["calls"], json::array());
    } else {
      EXPECT_EQ(answer["calls"][0]["name"], "f");
      const std::string got = answer["calls"][0]["arguments"];
      EXPECT_EQ(got, end <= arguments ? "" : kCalls.substr(arguments, std::min(end, first_end) - arguments)) << end;
    }
  }
  // A stop string or a stop token of the request may cut a call, too.
  EXPECT_EQ(answer_of(ToolChoice::kRequired, R"([{"name": "f", "parameters": {"a")", FinishReason::kStop),
            (json{{"content", ""}, {"calls", {{{"name", "f"}, {"arguments", "{\"a\""}}}}, {"finish_reason", "stop"}}));
}

TEST(GenerationTools, GivesTheNamedCall) {
  for (const std::string arguments : {"{\"a\": \"\xf0\x9f\x98\x80\"}", "{}"})
    EXPECT_EQ(
        answer_of(ToolChoice::kNamed, arguments, FinishReason::kStop),
        (json{{"content", ""}, {"calls", {{{"name", "f"}, {"arguments", arguments}}}}, {"finish_reason", "stop"}}));
  EXPECT_EQ(answer_of(ToolChoice::kNamed, "{\"a", FinishReason::kLength),
            (json{{"content", ""}, {"calls", {{{"name", "f"}, {"arguments", "{\"a"}}}}, {"finish_reason", "length"}}));
}

TEST(GenerationTools, GivesEachChoiceItsCalls) {
  for (const bool stream : {false, true}) {
    Exchange exchange(request_with_tools(ToolChoice::kRequired, stream, 2));
    exchange.take(1, kCalls.substr(0, 30), std::nullopt);
    take_all(exchange, 0, R"([{"name": "name", "parameters": {}}])", FinishReason::kStop);
    take_all(exchange, 1, kCalls.substr(30), FinishReason::kStop);
    const json choices = stream ? joined_choices(*exchange.reply) : choices_of(*exchange.reply);
    ASSERT_EQ(choices.size(), 2u);
    EXPECT_EQ(choices[0]["calls"], (json{{{"name", "name"}, {"arguments", "{}"}}}));
    EXPECT_EQ(choices[1]["calls"][0]["arguments"], R"({"a": "}]\"", "b": [{}]})");
    EXPECT_EQ(choices[1]["finish_reason"], "tool_calls");
  }
}

// What the grammar allows is what the reader reads, whatever the names and however the text was cut.
TEST(GenerationTools, ReadsWhatTheGrammarAllows) {
  const json parameters{{"type", "object"},
                        {"properties", {{"parameters", {{"type", "string"}}}, {"name", {{"type", "array"}}}}},
                        {"required", {"parameters"}}};
  nlohmann::ordered_json object{{"tool_choice", "required"}, {"tools", nlohmann::ordered_json::array()}};
  for (const char* name : {"f", "name", "parameters"})
    object["tools"].push_back({{"type", "function"}, {"function", {{"name", name}, {"parameters", parameters}}}});
  const ToolUse use = read_tool_use(object);
  const auto grammar = compile_grammar(calls_constraint(object, use));
  const auto table = shipped_table();
  int ended = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const std::string text = random_output(grammar, table, seed);
    if (text.empty()) continue;
    ++ended;
    json expected = json::array();
    for (const json& call : json::parse(text)) expected.push_back({call["name"], call["parameters"]});
    const std::unique_ptr<AnswerReader> reader = make_tool_call_reader(use);
    std::vector<ToolCallPiece> calls;
    for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
      n = 1 + (seed + at) % 7;
      append_calls(calls, reader->push(text.substr(at, n)).calls);
    }
    EXPECT_TRUE(reader->complete()) << text;
    json got = json::array();
    for (const ToolCallPiece& call : calls) got.push_back({call.name, json::parse(call.arguments)});
    EXPECT_EQ(got, expected) << text;
  }
  EXPECT_GT(ended, 20);
}

}  // namespace
}  // namespace foe
