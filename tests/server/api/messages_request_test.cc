// Requests of Anthropic's Messages API: which chat they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/generation_request.h"
#include "server/api/messages_api.h"
#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::StartsWith;

// The prompt is what the template has got, as JSON.
ServedModel messages_model() {
  ServedModel m = small_model();
  m.max_positions = 8192;
  m.chat_template = ChatTemplate::parse(
      "{{ {'messages': messages, 'tools': tools | default(none), 'thinks': enable_thinking | default(none),"
      " 'effort': reasoning_effort | default(none), 'begins': add_generation_prompt} | tojson }}");
  return m;
}

GenerationRequest read_messages(const json& body) {
  return parse_messages_request(body.dump(), messages_model());
}

json prompt_of(const json& body) {
  return json::parse(gpt2_tokenizer().decode(read_messages(body).prompts.at(0).tokens()));
}

// A request of one message, and more fields.
json with_fields(const json& fields) {
  json body{{"max_tokens", 5}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(fields);
  return body;
}

json messages_of(const json& messages) {
  return prompt_of({{"max_tokens", 5}, {"messages", messages}}).at("messages");
}

std::string refusal_of_body(const json& body) {
  try {
    read_messages(body);
  } catch (const ApiError& error) {
    if (error.status() == 400) {
      EXPECT_THAT(error.what(), StartsWith(error.param() + ": "));
    }
    return fmt::format("{} {}", error.status(), error.what());
  }
  return "accepted";
}

TEST(MessagesRequest, IsTheChatThatItDescribes) {
  const json prompt =
      prompt_of({{"model", "m"},
                 {"max_tokens", 5},
                 {"system",
                  {{{"type", "text"}, {"text", "x-anthropic-billing-header: 1"}},
                   {{"type", "text"}, {"text", "Be "}, {"cache_control", {{"type", "ephemeral"}}}},
                   {{"type", "text"}, {"text", "brief."}}}},
                 {"messages",
                  {{{"role", "user"}, {"content", "Is it raining?"}},
                   {{"role", "assistant"},
                    {"content",
                     {{{"type", "thinking"}, {"thinking", "Hm."}, {"signature", "s"}},
                      {{"type", "text"}, {"text", "I look."}},
                      {{"type", "tool_use"}, {"id", "a"}, {"name", "f"}, {"input", {{"city", "Oslo"}}}},
                      {{"type", "tool_use"}, {"id", "b"}, {"name", "f"}, {"input", json::object()}}}}},
                   {{"role", "user"},
                    {"content",
                     {{{"type", "tool_result"}, {"tool_use_id", "a"}, {"content", "yes"}},
                      {{"type", "tool_result"},
                       {"tool_use_id", "b"},
                       {"is_error", true},
                       {"content", {{{"type", "text"}, {"text", "no "}}, {{"type", "text"}, {"text", "city"}}}}},
                      {{"type", "text"}, {"text", "So?"}}}}}}}});
  const auto call = [](const char* id, const json& arguments) {
    return json{{"id", id}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", arguments}}}};
  };
  EXPECT_EQ(prompt["messages"],
            (json{{{"role", "system"}, {"content", "Be brief."}},
                  {{"role", "user"}, {"content", "Is it raining?"}},
                  {{"role", "assistant"},
                   {"content", "I look."},
                   {"reasoning_content", "Hm."},
                   {"tool_calls", {call("a", {{"city", "Oslo"}}), call("b", json::object())}}},
                  {{"role", "tool"}, {"tool_call_id", "a"}, {"content", "yes"}},
                  {{"role", "tool"}, {"tool_call_id", "b"}, {"content", "no city"}, {"is_error", true}},
                  {{"role", "user"}, {"content", "So?"}}}));
  EXPECT_EQ(prompt["begins"], true);
  // Text before a result stays before it; a result need not have content, and calls need no text.
  EXPECT_EQ(messages_of(
                {{{"role", "user"},
                  {"content", {{{"type", "text"}, {"text", "a"}}, {{"type", "tool_result"}, {"tool_use_id", "b"}}}}}}),
            (json{{{"role", "user"}, {"content", "a"}}, {{"role", "tool"}, {"tool_call_id", "b"}, {"content", ""}}}));
  EXPECT_EQ(messages_of({{{"role", "assistant"},
                          {"content", {{{"type", "tool_use"}, {"id", "a"}, {"name", "f"}, {"input", json::object()}}}}},
                         {{"role", "user"}, {"content", "x"}}})[0]["content"],
            nullptr);
  EXPECT_EQ(prompt_of(with_fields({{"system", "s"}}))["messages"][0], (json{{"role", "system"}, {"content", "s"}}));
}

TEST(MessagesRequest, SaysWhatTheAnswerIsTo) {
  const GenerationRequest r = read_messages(with_fields({{"stop_sequences", {"x", "y"}},
                                                         {"temperature", 0.5},
                                                         {"top_k", 3},
                                                         {"top_p", 0.25},
                                                         {"stream", true},
                                                         {"metadata", {{"user_id", "u"}}},
                                                         {"service_tier", "auto"},
                                                         {"seed", 7}}));
  EXPECT_EQ(r.api, Api::kMessages);
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_THAT(r.stop, ElementsAre("x", "y"));
  EXPECT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_EQ(r.sampling.top_k, 3);
  EXPECT_EQ(r.sampling.top_p, 0.25f);
  EXPECT_EQ(r.seed, 7u);
  EXPECT_TRUE(r.stream);
  const json schema{{"type", "object"}};
  const json config{{"effort", "low"}, {"format", {{"type", "json_schema"}, {"schema", schema}}}};
  EXPECT_EQ(json::parse(read_messages(with_fields({{"output_config", config}})).constraint.rule), schema);
  EXPECT_EQ(prompt_of(with_fields({{"output_config", config}}))["effort"], "low");
  EXPECT_EQ(prompt_of(with_fields({{"thinking", {{"type", "disabled"}}}}))["thinks"], false);
  EXPECT_EQ(prompt_of(with_fields({{"thinking", {{"type", "adaptive"}, {"display", "summarized"}}}}))["thinks"], true);
  EXPECT_EQ(prompt_of(with_fields(
                {{"thinking", {{"type", "adaptive"}}}, {"chat_template_kwargs", {{"enable_thinking", 3}}}}))["thinks"],
            3);
}

TEST(MessagesRequest, HasTools) {
  const json schema{{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}};
  const json tools{{{"name", "f"}, {"description", "d"}, {"input_schema", schema}},
                   {{"name", "g"}, {"type", "custom"}, {"input_schema", schema}, {"strict", true}}};
  EXPECT_EQ(prompt_of(with_fields({{"tools", tools}}))["tools"],
            (json{{{"type", "function"}, {"function", {{"name", "f"}, {"description", "d"}, {"parameters", schema}}}},
                  {{"type", "function"}, {"function", {{"name", "g"}, {"parameters", schema}, {"strict", true}}}}}));
  const auto use = [&](const json& choice) {
    return read_messages(with_fields({{"tools", tools}, {"tool_choice", choice}})).tools;
  };
  EXPECT_EQ(use(nullptr).choice, ToolChoice::kAuto);
  EXPECT_EQ(use({{"type", "auto"}}).choice, ToolChoice::kAuto);
  EXPECT_TRUE(use({{"type", "auto"}}).parallel);
  EXPECT_FALSE(use({{"type", "auto"}, {"disable_parallel_tool_use", true}}).parallel);
  EXPECT_EQ(use({{"type", "any"}}).choice, ToolChoice::kRequired);
  EXPECT_EQ(use({{"type", "none"}}).choice, ToolChoice::kNone);
  EXPECT_EQ(use({{"type", "tool"}, {"name", "g"}}).choice, ToolChoice::kNamed);
  EXPECT_THAT(use({{"type", "tool"}, {"name", "g"}}).names, ElementsAre("g"));
}

// Anthropic's API calls this a prefill.
TEST(MessagesRequest, GoesOnFromAnAssistantsMessage) {
  ServedModel m = messages_model();
  m.chat_template = ChatTemplate::parse("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:");
  const GenerationRequest r = parse_messages_request(
      R"({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"},
                                        {"role": "assistant", "content": [{"type": "text", "text": "It is ("}]}]})",
      m);
  EXPECT_EQ(gpt2_tokenizer().decode(r.prompts[0].tokens()), "user: hi\nassistant: It is (");
  EXPECT_EQ(refusal_of_body(
                {{"max_tokens", 5},
                 {"messages",
                  {{{"role", "assistant"},
                    {"content", {{{"type", "tool_use"}, {"id", "a"}, {"name", "f"}, {"input", json::object()}}}}}}}}),
            "400 messages: expected the results of tools behind the calls in the last message, got none");
}

TEST(MessagesRequest, RefusesWhatItCannotKeepByName) {
  const auto refusal_of_field = [](const char* name, const json& value) {
    return refusal_of_body(with_fields({{name, value}}));
  };
  const std::tuple<const char*, json, std::string> wrong[] = {
      {"max_tokens", nullptr, "max_tokens: expected how many tokens the answer may have, got none"},
      {"max_tokens", 0, "max_tokens: expected an integer from 1 to 8192, got 0"},
      {"temprature", 1, "temprature: expected a field of this endpoint, got an unknown one"},
      {"input", "x", "input: expected a field of this endpoint, got one of another"},
      {"n", 2, "n: expected 1, as nothing else is supported, got 2"},
      {"stop", "x", "stop: expected [], as nothing else is supported, got \"x\"; use stop_sequences"},
      {"stop_sequences", "x", "stop_sequences: expected a list of strings, got \"x\""},
      {"stop_sequences", {""}, "stop_sequences: expected strings of 1 to 1024 bytes, got one of 0"},
      {"temperature", "x", "temperature: expected a number, got \"x\""},
      {"container", "c", "container: \"c\" is not supported"},
      {"system", 3, "system: expected a text or a list of blocks, got 3"},
      {"system", {{{"type", "image"}}}, R"(system: expected blocks of the type text, got {"type":"image"})"},
      {"system",
       {{{"type", "text"}, {"text", "x"}, {"size", 3}}},
       R"(system: expected type, text, cache_control, citations, got "size")"},
      {"thinking",
       {{"type", "enabled"}, {"budget_tokens", 5}},
       "thinking: expected budget_tokens of at least 1, and fewer than max_tokens, got 5"},
      {"thinking",
       {{"type", "enabled"}, {"budget_tokens", 0.5}},
       "thinking: expected budget_tokens of at least 1, and fewer than max_tokens, got 0.5"},
      {"thinking",
       {{"type", "enabled"}, {"budget_tokens", 4}},
       "thinking: expected none, as this server does not read reasoning (--reasoning-parser), got 4"},
      {"thinking",
       {{"type", "enabled"}},
       R"(thinking: expected budget_tokens with the type enabled, and with no other, got {"type":"enabled"})"},
      {"thinking",
       {{"type", "adaptive"}, {"budget_tokens", 4}},
       "thinking: expected budget_tokens with the type enabled, and with no other, got "
       R"({"budget_tokens":4,"type":"adaptive"})"},
      {"thinking",
       {{"type", "much"}},
       R"(thinking: expected the type enabled, adaptive or disabled, got {"type":"much"})"},
      {"thinking",
       {{"type", "adaptive"}, {"display", "omitted"}},
       R"(thinking: expected no display but summarized, got "omitted")"},
      {"output_config", {{"effort", 3}}, "output_config: expected a string, got 3"},
      {"output_config",
       {{"format", {{"type", "text"}}}},
       R"(output_config: expected a format of the type json_schema, got {"type":"text"})"},
      {"tool_choice", {{"type", "any"}}, "tool_choice: expected none or auto without tools, got \"required\""},
      {"tool_choice", {{"type", "some"}}, "tool_choice: expected the type auto, any, tool or none, got some"},
      {"tool_choice",
       {{"type", "auto"}, {"name", "f"}},
       R"(tool_choice: expected a name only with the type tool, got {"name":"f","type":"auto"})"},
      {"tools",
       {{{"type", "web_search_20250305"}, {"name", "web_search"}}},
       R"(tools: expected tools of the type custom, as there are none on the server, got "web_search_20250305")"},
      {"tools", {{{"name", "f"}}}, R"(tools: expected input_schema of the type object, got {"name":"f"})"},
      {"tools",
       {{{"input_schema", json::object()}}},
       R"(tools: expected functions with a name, got {"parameters":{}})"},
      {"tools",
       {{{"name", "f"}, {"input_schema", json::object()}, {"defer_loading", true}}},
       "tools: expected defer_loading = false, got true"}};
  for (const auto& [name, value, expected] : wrong) EXPECT_EQ(refusal_of_field(name, value), "400 " + expected);
  EXPECT_EQ(refusal_of_body(with_fields({{"model", "other"}})),
            "404 The model `other` does not exist: this server has `m`.");
}

TEST(MessagesRequest, RefusesWrongMessages) {
  const auto refusal_of_messages = [](const json& messages) {
    return refusal_of_body({{"max_tokens", 5}, {"messages", messages}});
  };
  const auto refusal_of_block = [&](const char* role, const json& block) {
    return refusal_of_messages({{{"role", role}, {"content", {block}}}, {{"role", "user"}, {"content", "x"}}});
  };
  EXPECT_EQ(refusal_of_messages(json::array()), "400 messages: expected a list of messages, got []");
  EXPECT_EQ(refusal_of_messages({3}), "400 messages: expected messages, which are objects, got 3");
  EXPECT_EQ(refusal_of_messages({{{"role", "tool"}, {"content", "x"}}}),
            "400 messages: expected the role user, assistant or system, got tool");
  EXPECT_EQ(refusal_of_messages({{{"role", "user"}, {"content", json::array()}}}),
            R"(400 messages: expected content, a text or a list of blocks, got {"content":[],"role":"user"})");
  EXPECT_EQ(refusal_of_messages({{{"role", "user"}, {"content", "x"}, {"name", "n"}}}),
            R"(400 messages: expected role, content, got "name")");
  EXPECT_EQ(refusal_of_block("user", {{"type", "image"}, {"source", json::object()}}),
            R"(400 messages: expected blocks of the type text, got {"source":{},"type":"image"})");
  EXPECT_EQ(refusal_of_block("user", "x"), R"(400 messages: expected blocks, which are objects, got "x")");
  EXPECT_EQ(
      refusal_of_block("assistant", {{"type", "tool_use"}, {"id", "a"}, {"name", "f"}, {"input", "{}"}}),
      R"(400 messages: expected input of the type object, got {"id":"a","input":"{}","name":"f","type":"tool_use"})");
  EXPECT_EQ(refusal_of_block("assistant", {{"type", "text"}, {"text", "x"}, {"citations", {1}}}),
            "400 messages: expected a text without citations, got [1]");
}

TEST(MessagesRequest, TokensAreCounted) {
  const json body = with_fields({{"system", "Be brief."}});
  const std::size_t tokens = read_messages(body).prompts[0].size();
  json counted = body;
  counted.erase("max_tokens");
  EXPECT_EQ(json::parse(count_message_tokens(counted.dump(), messages_model())),
            (json{{"input_tokens", tokens}, {"context_management", {{"original_input_tokens", tokens}}}}));
  // A conversation may be longer than the context: that is what one counts for.
  const std::size_t most = messages_model().max_positions;
  const json longer{{"messages", {{{"role", "user"}, {"content", std::string(2 * most, '7')}}}}};
  EXPECT_GT(json::parse(count_message_tokens(longer.dump(), messages_model()))["input_tokens"], most);
}

TEST(MessagesRequest, WhatACountCannotKeepIsRefused) {
  const std::tuple<const char*, json, std::string> wrong[] = {
      {"model", "other", "The model `other` does not exist: this server has `m`."},
      {"receipt", true, "receipt: expected false where tokens are counted, got true"},
      {"stream", true, "stream: expected false where tokens are counted, got true"},
      {"temperature", "x", "temperature: expected a number, got \"x\""},
      {"thinking",
       {{"type", "enabled"}, {"budget_tokens", 9}},
       "thinking: expected none, as this server does not read reasoning (--reasoning-parser), got 9"}};
  for (const auto& [name, value, expected] : wrong) try {
      json body = with_fields({{name, value}});
      body.erase("max_tokens");
      count_message_tokens(body.dump(), messages_model());
      ADD_FAILURE() << name;
    } catch (const ApiError& error) {
      EXPECT_EQ(std::string(error.what()), expected);
    }
}

}  // namespace
}  // namespace foe
