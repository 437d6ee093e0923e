#include "server/api/tool_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "grammar/texts.h"
#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

ServedModel model_with_tools() {
  ServedModel m = small_model();
  m.max_positions = 4096;
  m.chat_template = ChatTemplate::parse("{{ tools | tojson }}{{ messages[0].content }}");
  return m;
}

GenerationRequest parse_with(const std::string& fields) {
  return parse_chat_request(R"({"messages": [{"role": "user", "content": "hi"}], )" + fields + "}", model_with_tools());
}

std::string refusal_with(const std::string& fields) {
  try {
    parse_with(fields);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_THAT(error.what(), StartsWith(error.param() + ": "));
    return error.what();
  }
  return "accepted";
}

std::string tool_of(const std::string& name, const std::string& parameters = "{}") {
  return R"({"type": "function", "function": {"name": ")" + name + R"(", "parameters": )" + parameters + "}}";
}

const std::string kCity = R"({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})";
const std::string kTwo = R"("tools": [)" + tool_of("f", kCity) + ", " + tool_of("g", "null") + "]";

// Expects the answer to be one of the right texts and none of the wrong ones.
void expect_answers(const std::string& fields, const std::vector<std::string>& right,
                    const std::vector<std::string>& wrong) {
  const Constraint constraint = parse_with(fields).constraint;
  ASSERT_EQ(constraint.kind, Constraint::Kind::kJsonSchema);
  expect_texts(constraint.rule, right, wrong);
}

TEST(ToolRequest, RequiredCallsAreAnArray) {
  const std::string f = R"({"name": "f", "parameters": {"city": "a"}})", g = R"({"name":"g","parameters":{}})";
  const std::vector<std::string> wrong = {"[]",
                                          f,
                                          "",
                                          R"([{"name": "h", "parameters": {}}])",
                                          R"([{"name": "f", "parameters": {}}])",
                                          R"([{"name": "g", "parameters": {"city": "a"}}])",
                                          R"([{"parameters": {}, "name": "g"}])",
                                          R"([{"name": "g"}])",
                                          R"([{"name": "g", "parameters": null}])"};
  expect_answers(kTwo + R"(, "tool_choice": "required")",
                 {"[" + f + "]", "[" + g + "," + f + "]", "[" + g + ", " + g + ", " + g + "]"}, wrong);
  std::vector<std::string> several = wrong;
  several.push_back("[" + g + "," + f + "]");
  expect_answers(kTwo + R"(, "tool_choice": "required", "parallel_tool_calls": false)", {"[" + f + "]", "[" + g + "]"},
                 several);
}

TEST(ToolRequest, ANamedCallIsItsArguments) {
  const auto named = [](const std::string& name) {
    return kTwo + R"(, "tool_choice": {"type": "function", "function": {"name": ")" + name + R"("}})";
  };
  expect_answers(named("f"), {R"({"city":"a"})", R"({ "city": "" })"}, {"{}", R"([{"city":"a"}])", R"({"city": 3})"});
  expect_answers(named("g"), {"{}"}, {R"({"city":"a"})", "[]", ""});
  // Whatever a schema allows, arguments are an object.
  expect_answers(R"("tools": [)" + tool_of("f") + R"(], "tool_choice": {"function": {"name": "f"}})",
                 {"{}", R"({"a": [1]})"}, {"3", "[]", "null"});
}

std::string allowed(const std::string& mode, const std::string& tools) {
  return kTwo + R"(, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": ")" + mode +
         R"(", "tools": [)" + tools + "]}}";
}

const std::string kOnlyG = R"({"type": "function", "function": {"name": "g"}})";

// The template gets all tools, so that its beginning stays in the prefix cache; only some may be called.
TEST(ToolRequest, AllowedToolsAreSomeOfThem) {
  const GenerationRequest r = parse_with(allowed("auto", kOnlyG));
  EXPECT_EQ(r.tools.choice, ToolChoice::kAuto);
  EXPECT_THAT(r.tools.names, testing::ElementsAre("g"));
  EXPECT_EQ(r.constraint.kind, Constraint::Kind::kNone);
  EXPECT_EQ(r.prompts[0].tokens(), parse_with(kTwo).prompts[0].tokens());
  const std::string f = R"({"name":"f","parameters":{"city":"a"}})", g = R"({"name":"g","parameters":{}})";
  expect_answers(allowed("required", kOnlyG), {"[" + g + "]", "[" + g + "," + g + "]"}, {"[" + f + "]", "[]", "{}"});
  expect_answers(allowed("required", kOnlyG + R"(, {"type": "function", "function": {"name": "f"}})"),
                 {"[" + g + "]", "[" + f + "," + g + "]"}, {"[]"});
}

TEST(ToolRequest, ReferencesStayWithinTheirTool) {
  const std::string list = R"({"type": "object", "required": ["v"], "properties": {"v": {"$ref": "#/$defs/v"},)"
                           R"( "next": {"$ref": "#"}, "enum": {"const": {"$ref": "#/x"}}}, "$defs": {"v": {"type": )";
  expect_answers(R"("tool_choice": "required", "tools": [)" + tool_of("f", list + R"("null"}}})") + ", " +
                     tool_of("g", list + R"("boolean"}}})") + "]",
                 {R"([{"name":"f","parameters":{"v":null,"next":{"v":null}}}])",
                  R"([{"name":"g","parameters":{"v":true,"next":{"v":false},"enum":{"$ref":"#/x"}}}])"},
                 {R"([{"name":"f","parameters":{"v":true}}])", R"([{"name":"g","parameters":{"v":null}}])",
                  R"([{"name":"f","parameters":{"v":null,"next":{}}}])"});
}

TEST(ToolRequest, AutoAndNoneAreFree) {
  for (const char* choice : {"null", "\"auto\""}) {
    const GenerationRequest r = parse_with(kTwo + R"(, "tool_choice": )" + choice);
    EXPECT_EQ(r.tools.choice, ToolChoice::kAuto);
    EXPECT_THAT(r.tools.names, testing::ElementsAre("f", "g"));
    EXPECT_EQ(r.constraint.kind, Constraint::Kind::kNone);
  }
  EXPECT_EQ(parse_with(kTwo + R"(, "tool_choice": "none")").tools.choice, ToolChoice::kNone);
  EXPECT_EQ(parse_with(R"("tools": [], "tool_choice": "auto")").tools.choice, ToolChoice::kNone);
  EXPECT_EQ(parse_with(kTwo + R"(, "regex": "a")").constraint.kind, Constraint::Kind::kRegex);
  // A schema that no grammar can hold is only for the template.
  parse_with(R"("tools": [)" + tool_of("f", R"({"not": {}})") + "]");
}

TEST(ToolRequest, RefusesToolsThatAreNoFunctions) {
  const auto tools = [](const std::string& value) { return refusal_with("\"tools\": " + value); };
  EXPECT_EQ(tools("{}"), "tools: expected a list, got {}");
  EXPECT_EQ(tools("[3]"), R"(tools: expected {"type": "function", "function": {"name": ...}}, got 3)");
  EXPECT_THAT(tools(R"([{"type": "custom", "custom": {"name": "f"}}])"), HasSubstr("got {\"custom\""));
  EXPECT_THAT(tools(R"([{"type": "function"}])"), HasSubstr(R"(got {"type":"function"})"));
  EXPECT_EQ(tools(R"([{"type": "function", "function": {}}])"), "tools: expected functions with a name, got {}");
  const std::string names = "tools: expected names of 1 to 64 letters, digits, _ and -, got ";
  EXPECT_EQ(tools("[" + tool_of("get weather") + "]"), names + R"("get weather")");
  EXPECT_EQ(tools("[" + tool_of("") + "]"), names + R"("")");
  EXPECT_THAT(tools("[" + tool_of(std::string(65, 'a')) + "]"), StartsWith(names));
  EXPECT_EQ(tools("[" + tool_of(std::string(64, 'a')) + "]"), "accepted");
  EXPECT_EQ(tools("[" + tool_of("f") + "," + tool_of("f") + "]"), "tools: expected different names, got f twice");
  EXPECT_EQ(tools("[" + tool_of("f", "[]") + "]"),
            "tools: expected the parameters of f to be a JSON schema, an object, got []");
  EXPECT_EQ(tools(R"([{"function": {"name": "f", "strict": 1}}])"),
            "tools: expected strict to be true or false, got 1");
}

TEST(ToolRequest, RefusesChoicesThatCannotBe) {
  const auto choice = [](const std::string& value) { return refusal_with(kTwo + R"(, "tool_choice": )" + value); };
  const std::string one_of =
      R"(tool_choice: expected none, auto, required, {"type": "function", "function": {"name": ...}} or )"
      R"({"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}}, got )";
  EXPECT_EQ(choice(R"({"type": "function", "function": {"name": "h"}})"),
            "tool_choice: expected the name of one of the tools, got \"h\"");
  EXPECT_EQ(choice("{}"), one_of + "{}");
  EXPECT_EQ(choice("\"any\""), one_of + "\"any\"");
  EXPECT_EQ(choice("3"), one_of + "3");
  for (const std::string value : {R"("required")", R"({"type":"function","function":{"name":"f"}})"}) {
    EXPECT_THAT(refusal_with(R"("tool_choice": )" + value),
                StartsWith("tool_choice: expected none or auto without tools"));
    EXPECT_EQ(refusal_with(R"("tools": [], "tool_choice": )" + value), refusal_with(R"("tool_choice": )" + value));
    EXPECT_EQ(choice(value + R"(, "guided_regex": "a")"),
              "tool_choice: expected none or auto beside guided_regex, which is another rule for the text");
    EXPECT_EQ(choice(value + R"(, "response_format": {"type": "json_object"})"), "accepted");
    EXPECT_THAT(choice(value + R"(, "response_format": {"type": "json_object", "schema": {"not": {}}})"),
                StartsWith("response_format: "));
    EXPECT_THAT(choice(value + R"(, "ignore_eos": true)"), StartsWith("ignore_eos: expected false"));
    EXPECT_EQ(choice(value + R"(, "response_format": {"type": "text"})"), "accepted");
  }
  const auto of = [](const std::string& mode, const std::string& tools) { return refusal_with(allowed(mode, tools)); };
  const std::string unknown = R"({"type": "function", "function": {"name": "h"}})";
  EXPECT_EQ(of("auto", kOnlyG + ", " + unknown), "tool_choice: expected names of the tools, got \"h\"");
  EXPECT_EQ(of("required", "3"), one_of + "3");
  for (const std::string& wrong : {of("auto", ""), of("any", kOnlyG), choice(R"({"type": "allowed_tools"})"),
                                   choice(R"({"type": "allowed_tools", "allowed_tools": {"tools": []}})")})
    EXPECT_THAT(wrong,
                StartsWith("tool_choice: expected allowed_tools with the mode auto or required, and tools, got "));
  EXPECT_EQ(choice(R"("required", "parallel_tool_calls": 1)"), "parallel_tool_calls: expected true or false, got 1");
}

TEST(ToolRequest, SaysWhichSchemaAGrammarCannotHold) {
  const std::string wrong = R"({"type": "object", "properties": {"a": {"not": {}}}})";
  for (const std::string choice : {R"("required")", R"({"type":"function","function":{"name":"f"}})"})
    EXPECT_EQ(
        refusal_with(R"("tools": [)" + tool_of("f", wrong) + R"(], "tool_choice": )" + choice),
        "tools: #/$defs/f/properties/a/not: expected a keyword that is supported, got \"not\": what must not be has "
        "no grammar of its own");
  std::string many = tool_of("f0");
  for (int i = 1; i < 129; ++i) many += ", " + tool_of(fmt::format("f{}", i));
  EXPECT_EQ(refusal_with(R"("tool_choice": "required", "tools": [)" + many + "]"),
            "tools: #: expected at most 128 alternatives, got 129");
}

}  // namespace
}  // namespace foe
