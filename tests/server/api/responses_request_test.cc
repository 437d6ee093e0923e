// Requests of OpenAI's Responses API: which chat they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/generation_request.h"
#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::StartsWith;

// The prompt is what the template has got, as JSON.
ServedModel responses_model() {
  ServedModel m = small_model();
  m.max_positions = 8192;
  m.chat_template = ChatTemplate::parse(
      "{{ {'messages': messages, 'tools': tools | default(none), 'effort': reasoning_effort | default(none),"
      " 'begins': add_generation_prompt} | tojson }}");
  return m;
}

GenerationRequest read_response(const json& body) {
  return parse_responses_request(body.dump(), responses_model());
}

json chat_of(const json& body) {
  return json::parse(gpt2_tokenizer().decode(read_response(body).prompts.at(0).tokens()));
}

json with_input(json fields) {
  if (!fields.contains("input")) fields["input"] = "hi";
  return fields;
}

std::string refusal_of_response(const json& body) {
  try {
    read_response(body);
  } catch (const ApiError& error) {
    if (error.status() == 400) {
      EXPECT_THAT(error.what(), StartsWith(error.param() + ": "));
    }
    return fmt::format("{} {}", error.status(), error.what());
  }
  return "accepted";
}

TEST(ResponsesRequest, IsTheChatThatItDescribes) {
  EXPECT_EQ(chat_of({{"input", "hi"}})["messages"], json::array({{{"role", "user"}, {"content", "hi"}}}));
  const auto call_item = [](const char* id) {
    return json{{"type", "function_call"},   {"id", "fc"},           {"call_id", id}, {"name", "f"},
                {"arguments", "{\"a\": 1}"}, {"status", "completed"}};
  };
  const json text{{"type", "output_text"}, {"text", "I look."}, {"annotations", json::array()}, {"logprobs", nullptr}};
  const json chat = chat_of(
      {{"instructions", "Be brief."},
       {"input", json::array({{{"role", "user"},
                               {"content", json::array({{{"type", "input_text"}, {"text", "Is it raining?"}}})}},
                              {{"type", "reasoning"},
                               {"id", "rs"},
                               {"summary", json::array()},
                               {"content", json::array({{{"type", "reasoning_text"}, {"text", "Hm."}}})}},
                              {{"type", "message"},
                               {"id", "m"},
                               {"role", "assistant"},
                               {"status", "completed"},
                               {"content", json::array({text})}},
                              call_item("a"),
                              call_item("b"),
                              {{"type", "function_call_output"}, {"call_id", "a"}, {"output", "yes"}},
                              {{"type", "function_call_output"},
                               {"call_id", "b"},
                               {"output", json::array({{{"type", "input_text"}, {"text", "no"}}})}},
                              call_item("c"),
                              {{"type", "message"}, {"role", "developer"}, {"content", "So?"}}})}});
  const auto call = [](const char* id) {
    return json{{"id", id}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"a", 1}}}}}};
  };
  EXPECT_EQ(chat["messages"],
            json::array({{{"role", "system"}, {"content", "Be brief."}},
                         {{"role", "user"}, {"content", "Is it raining?"}},
                         {{"role", "assistant"},
                          {"content", "I look."},
                          {"reasoning_content", "Hm."},
                          {"tool_calls", json::array({call("a"), call("b")})}},
                         {{"role", "tool"}, {"tool_call_id", "a"}, {"content", "yes"}},
                         {{"role", "tool"}, {"tool_call_id", "b"}, {"content", "no"}},
                         {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", json::array({call("c")})}},
                         {{"role", "developer"}, {"content", "So?"}}}));
  EXPECT_EQ(chat["begins"], true);
}

TEST(ResponsesRequest, GoesOnFromAMessageThatWasNotFinished) {
  ServedModel m = responses_model();
  m.chat_template = ChatTemplate::parse("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:");
  const auto prompt = [&](const std::string& status) {
    const GenerationRequest r = parse_responses_request(
        R"({"input": [{"role": "user", "content": "hi"},
                      {"type": "message", "role": "assistant", "content": "It is (", "status": ")" +
            status + R"("}]})",
        m);
    return gpt2_tokenizer().decode(r.prompts[0].tokens());
  };
  EXPECT_EQ(prompt("incomplete"), "user: hi\nassistant: It is (");
  EXPECT_EQ(prompt("completed"), "user: hi\nassistant: It is (\nassistant:");
}

TEST(ResponsesRequest, SaysWhatTheAnswerIsTo) {
  const json schema{{"type", "object"}};
  const json format{{"type", "json_schema"}, {"name", "n"}, {"schema", schema}, {"strict", true}};
  const GenerationRequest r = read_response({{"input", "hi"},
                                             {"max_output_tokens", 7},
                                             {"temperature", 0.7},
                                             {"top_p", 0.5},
                                             {"include", json::array({"message.output_text.logprobs"})},
                                             {"top_logprobs", 2},
                                             {"text", {{"format", format}, {"verbosity", "medium"}}},
                                             {"metadata", {{"a", "b"}}},
                                             {"user", "u"},
                                             {"store", false},
                                             {"stream", true},
                                             {"truncation", "disabled"},
                                             {"max_tool_calls", 3},
                                             {"seed", 9}});
  EXPECT_EQ(r.api, Api::kResponses);
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.sampling.logprobs, 2);
  EXPECT_EQ(json::parse(r.constraint.rule), schema);
  EXPECT_TRUE(r.stream);
  EXPECT_EQ(r.seed, 9u);
  const json repeated = json::parse("{" + r.repeated + "\"end\":0}");
  EXPECT_EQ(repeated["temperature"].dump(), "0.7");
  EXPECT_EQ(repeated["top_p"], 0.5);
  EXPECT_EQ(repeated["max_output_tokens"], 7);
  EXPECT_EQ(repeated["text"]["format"], format);
  EXPECT_EQ(repeated["metadata"], (json{{"a", "b"}}));
  EXPECT_EQ(repeated["tool_choice"], "auto");
  EXPECT_EQ(repeated["store"], false);
  EXPECT_EQ(repeated["max_tool_calls"], 3);
  EXPECT_EQ(read_response({{"input", "hi"}}).sampling.logprobs, -1);
  EXPECT_EQ(chat_of({{"input", "hi"}, {"reasoning", {{"effort", "low"}, {"summary", "auto"}}}})["effort"], "low");
  EXPECT_EQ(read_response({{"input", "hi"}, {"text", {{"format", {{"type", "json_object"}}}}}}).constraint.kind,
            Constraint::Kind::kJsonObject);
}

TEST(ResponsesRequest, HasTools) {
  const json schema{{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}};
  const json tools = json::array(
      {{{"type", "function"}, {"name", "f"}, {"description", "d"}, {"parameters", schema}, {"strict", true}},
       {{"type", "function"}, {"name", "g"}, {"parameters", nullptr}}});
  EXPECT_EQ(
      chat_of({{"input", "hi"}, {"tools", tools}})["tools"],
      json::array({{{"type", "function"},
                    {"function", {{"name", "f"}, {"description", "d"}, {"parameters", schema}, {"strict", true}}}},
                   {{"type", "function"}, {"function", {{"name", "g"}}}}}));
  const auto use = [&](const json& choice) {
    return read_response({{"input", "hi"}, {"tools", tools}, {"tool_choice", choice}, {"parallel_tool_calls", false}})
        .tools;
  };
  EXPECT_EQ(use(nullptr).choice, ToolChoice::kAuto);
  EXPECT_FALSE(use("auto").parallel);
  EXPECT_EQ(use("required").choice, ToolChoice::kRequired);
  EXPECT_EQ(use("none").choice, ToolChoice::kNone);
  EXPECT_THAT(use({{"type", "function"}, {"name", "g"}}).names, ElementsAre("g"));
  const json g = json::array({{{"type", "function"}, {"name", "g"}}});
  const ToolUse allowed = use({{"type", "allowed_tools"}, {"mode", "required"}, {"tools", g}});
  EXPECT_EQ(allowed.choice, ToolChoice::kRequired);
  EXPECT_THAT(allowed.names, ElementsAre("g"));
}

TEST(ResponsesRequest, RefusesWhatItCannotKeepByName) {
  const std::tuple<const char*, json, std::string> wrong[] = {
      {"temprature", 1, "temprature: expected a field of this endpoint, got an unknown one"},
      {"messages", json::array(), "messages: expected a field of this endpoint, got one of another"},
      {"store", true, "store: expected false, as nothing else is supported, got true; this server keeps no responses"},
      {"previous_response_id", "resp_1",
       "previous_response_id: \"resp_1\" is not supported; this server keeps no responses: send the whole conversation "
       "as input"},
      {"background", true, "background: expected false, as nothing else is supported, got true"},
      {"truncation", "auto", "truncation: expected \"disabled\", as nothing else is supported, got \"auto\""},
      {"stream_options",
       {{"include_usage", true}},
       R"(stream_options: expected {} or {"include_obfuscation":false}, as nothing else is supported, got )"
       R"({"include_usage":true})"},
      {"max_tokens", 5, "max_tokens: 5 is not supported; use max_output_tokens"},
      {"max_output_tokens", 0, "max_output_tokens: expected an integer from 1 to 8192, got 0"},
      {"instructions", json::array({1}), "instructions: expected a text, got [1]"},
      {"include", json::array({"file_search_call.results"}),
       "include: expected message.output_text.logprobs or reasoning.encrypted_content, got "
       "\"file_search_call.results\""},
      {"top_logprobs", 2, "top_logprobs: expected it only with message.output_text.logprobs in include"},
      {"text", {{"verbosity", "low"}}, R"(text: expected no verbosity but medium, got "low")"},
      {"text",
       {{"format", {{"type", "xml"}}}},
       R"(text: expected a type of text, json_object or json_schema, got "xml")"},
      {"reasoning",
       {{"summary", "detailed"}},
       R"(reasoning: expected no summary but auto, as none is made, got "detailed")"},
      {"tools", json::array({{{"type", "web_search"}}}),
       R"(tools: expected tools of the type function, as there are none on the server, got {"type":"web_search"})"},
      {"tool_choice",
       {{"type", "web_search"}},
       R"(tool_choice: expected none, auto, required, {"type": "function", "name": ...} or )"
       R"({"type": "allowed_tools", "mode": ..., "tools": [...]}, got {"type":"web_search"})"},
      {"tool_choice", "required", "tool_choice: expected none or auto without tools, got \"required\""},
      {"input", json::array(), "input: expected a text or a list of items, got []"},
      {"input", json::array({3}), "input: expected items, which are objects, got 3"},
      {"input", json::array({{{"type", "item_reference"}, {"id", "x"}}}),
       "input: expected items of the type message, function_call, function_call_output or reasoning, got "
       R"({"id":"x","type":"item_reference"})"},
      {"input", json::array({{{"role", "user"}, {"content", json::array({{{"type", "input_image"}}})}}}),
       R"(input: expected parts of the type input_text or output_text, got {"type":"input_image"})"},
      {"input", json::array({{{"role", "user"}, {"content", "x"}, {"phase", "final_answer"}}}),
       R"(input: expected type, role, content, id, status, got "phase")"},
      {"input", json::array({{{"type", "reasoning"}, {"encrypted_content", "x"}}}),
       R"(input: expected type, id, summary, content, status, got "encrypted_content")"}};
  for (const auto& [name, value, expected] : wrong)
    EXPECT_THAT(refusal_of_response(with_input({{name, value}})), StartsWith("400 " + expected)) << name;
  EXPECT_THAT(refusal_of_response({{"input", std::string(40000, 'x')}}), StartsWith("400 input: this model's maximum"));
  EXPECT_EQ(refusal_of_response({{"input", "hi"}, {"model", "other"}}),
            "404 The model `other` does not exist: this server has `m`.");
}

}  // namespace
}  // namespace foe
