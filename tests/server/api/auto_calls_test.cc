// Calls of tools that a model decides on, as models write them.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api/recorded_reply.h"
#include "server/api/tool_calls.h"
#include "server/api/tool_syntax.h"

namespace foe {
namespace {

using nlohmann::json;

ToolUse auto_use(const char* syntax) {
  return {.choice = ToolChoice::kAuto, .names = {"f", "get-it"}, .syntax = tool_syntax_for(syntax, "")};
}

// Returns content and calls of a text in pieces of `size` bytes, as in `content` f{...} get-it{...}.
std::string read_in_pieces(const ToolUse& use, const std::string& text, std::size_t size) {
  const std::unique_ptr<AnswerReader> reader = make_tool_call_reader(use);
  std::string content;
  std::vector<ToolCallPiece> calls;
  const auto add = [&](AnswerPart part) {
    content += part.content;
    append_calls(calls, std::move(part.calls));
  };
  for (std::size_t at = 0; at < text.size(); at += size) add(reader->push(text.substr(at, size)));
  add(reader->finish());
  EXPECT_EQ(reader->complete(), !calls.empty());
  std::string result = "`" + content + "`";
  for (std::size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].index, i);
    EXPECT_TRUE(json::parse(calls[i].arguments).is_object());
    result += " " + calls[i].name + calls[i].arguments;
  }
  return result;
}

std::string read_all(const ToolUse& use, const std::string& text) {
  const std::string result = read_in_pieces(use, text, text.size() + 1);
  for (const std::size_t size : {1, 2, 3, 7, 13}) EXPECT_EQ(read_in_pieces(use, text, size), result) << text;
  return result;
}

void expect_content(const char* syntax, const std::string& text) {
  EXPECT_EQ(read_all(auto_use(syntax), text), "`" + text + "`");
}

TEST(AutoCalls, Hermes) {
  const auto read = [](const std::string& text) { return read_all(auto_use("hermes"), text); };
  const std::string f = R"(<tool_call>
{"name": "f", "arguments": {"a": "</tool_call> \"", "b": 1.50}}
</tool_call>)";
  const std::string f_read = R"( f{"a": "</tool_call> \"", "b": 1.50})";
  EXPECT_EQ(read(f), "``" + f_read);
  EXPECT_EQ(read("Let me see.\n" + f + "\n"), "`Let me see.`" + f_read);
  EXPECT_EQ(read(f + "\n" + R"(<tool_call>{"name": "get-it"}</tool_call>)" + "\n\nDone. "),
            "`\n\nDone. `" + f_read + " get-it{}");
  EXPECT_EQ(read(f.substr(0, f.size() - 12)), "``" + f_read);  // the end may be a token that ends the answer
  EXPECT_EQ(read(R"(<tool_call>{"arguments": "{\"a\": 3}", "name": "f"}</tool_call>)"), R"(`` f{"a": 3})");
  EXPECT_EQ(read(R"(<tool_call>{"name": "h"}</tool_call> and )" + f),
            R"(`<tool_call>{"name": "h"}</tool_call> and`)" + f_read);
  EXPECT_EQ(read("<tool_call>" + f), "`<tool_call>`" + f_read);
}

TEST(AutoCalls, WhatIsNoCallStays) {
  for (const std::string text :
       {"", "  Hi <tool_cal", "a <tool_call>", " \n", "<tool_call></tool_call>", "<tool_call>{\"name\": \"f\"",
        R"(<tool_call>{"name": "f", "arguments": [1]}</tool_call>)",
        R"(<tool_call>{"name": "f", "arguments": "x"}</tool_call>)",
        R"(<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>)", R"(<tool_call>["f"]</tool_call>)",
        R"(<tool_call>{"name": "f", "name": "f"}</tool_call>)", R"(<tool_call>{"name": 3}</tool_call> )",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>", "</tool_call>\n<tool_call>\n"})
    expect_content("hermes", text);
  for (const std::string text :
       {"[TOOL_CALLS]", "[TOOL_CALLS][]", "[TOOL_CALLS]f", "[TOOL_CALLS]h{}", "x [TOOL_CALLS]{}", "[TOOL_CALLS]f{} no",
        R"([TOOL_CALLS][{"name": "f"}, {"name": "h"}])"})
    expect_content("mistral", text);
  for (const std::string text :
       {"", " ", "{", R"({"name": "f")", R"({"name": "f"}; and)", R"({"name": "h"})", "{} ", R"(So: {"name": "f"})",
        "<|python_tag|>print(3)", "<|python", R"({"name": "f"} {"name": "f"})"})
    expect_content("llama3_json", text);
}

TEST(AutoCalls, StopsToLookAfterManyThatAreNone) {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += R"(<tool_call>{"a": "</tool_call>)";
  EXPECT_EQ(read_in_pieces(auto_use("hermes"), text, 5), "`" + text + "`");
}

TEST(AutoCalls, MistralAndLlama) {
  const auto mistral = [](const std::string& text) { return read_all(auto_use("mistral"), text); };
  EXPECT_EQ(
      mistral(R"([TOOL_CALLS] [{"name": "f", "arguments": {"a": [1, "]"]}}, {"name": "get-it", "arguments": {}}])"),
      R"(`` f{"a": [1, "]"]} get-it{})");
  EXPECT_EQ(mistral(R"(I see. [TOOL_CALLS]f{"a": "[TOOL_CALLS]"}[TOOL_CALLS]get-it[CALL_ID]abc[ARGS]{} )"),
            R"(`I see.` f{"a": "[TOOL_CALLS]"} get-it{})");
  const auto llama = [](const std::string& text) { return read_all(auto_use("llama3_json"), text); };
  EXPECT_EQ(llama(R"( {"name": "f", "parameters": {"a": ";"}}; {"name": "get-it", "parameters": {}} )"),
            R"(`` f{"a": ";"} get-it{})");
  EXPECT_EQ(llama(R"(<|python_tag|>{"name": "f", "parameters": {}})"), "`` f{}");
}

TEST(AutoCalls, Pythonic) {
  const auto read = [](const std::string& text) { return read_all(auto_use("pythonic"), text); };
  EXPECT_EQ(read("[f(city='Oslo', days=3), get-it()]"), R"(`` f{"city": "Oslo", "days": 3} get-it{})");
  EXPECT_EQ(read(" [ f ( a = [1, -2.5, ( ], b = 1) ]"), "` [ f ( a = [1, -2.5, ( ], b = 1) ]`");
  EXPECT_EQ(read(" [ f ( a = [1, -2.5, ] , b = {'k': None, \"l\": {}}, c=[True, False,], ) , ] \n"),
            R"(`` f{"a": [1, -2.5], "b": {"k": null, "l": {}}, "c": [true, false]})");
  EXPECT_EQ(read("<|python_start|>[f(a=.5, b=+1_000, c=2., d=1e-3)]<|python_end|>"),
            R"(`` f{"a": 0.5, "b": 1000, "c": 2.0, "d": 1e-3})");
  EXPECT_EQ(
      read(R"x([f(a='it\'s "so"\n', b="\x41\u00e9\U0001F600\d", c='\\', d='[])', e='é')])x"),
      R"x(`` f{"a": "it's \u0022so\u0022\n", "b": "\u0041\u00e9\ud83d\ude00\\d", "c": "\\", "d": "[])", "e": "é"})x");
  const std::string deep(40, '['), end(40, ']');
  for (const std::string text : {"[]",
                                 "[",
                                 "[f]",
                                 "[f(]",
                                 "[f()",
                                 "[f(3)]",
                                 "[f(a=b)]",
                                 "[f(a=3)] and",
                                 "[f(a=3, a=4)]",
                                 "[h(a=3)]",
                                 "f(a=3)",
                                 "[f(a='x)]",
                                 "[f(a={1: 2})]",
                                 "[f(a=f())]",
                                 "[f(a=1 2)]",
                                 "[f(,)]",
                                 "[,]",
                                 "[f(a=01)]",
                                 "[f(a='\\ud83d')]",
                                 "[f(a='\\U00110000')]",
                                 "[f(a='\\12')]",
                                 "[f(a='\\",
                                 "[f(a=--1)]",
                                 "[f(a=[,])]",
                                 "[1] See there.",
                                 "Hi [f()]"})
    expect_content("pythonic", text);
  expect_content("llama4_pythonic", "[f(a=" + deep + end + ")]");
  EXPECT_EQ(read_all(auto_use("llama4_pythonic"), "[f()]"), "`` f{}");
}

TEST(AutoCalls, WithArgumentsAsTexts) {
  ToolUse use = auto_use("qwen3_coder");
  use.strings.emplace("f", "a");
  const auto coder = [&](const std::string& text) { return read_all(use, "<tool_call>" + text + "</tool_call>"); };
  EXPECT_EQ(coder("\n<function=f>\n<parameter=a>\n3\n</parameter>\n<parameter=b>\n[1, 2]\n</parameter>\n"
                  "<parameter=c>\n\"x\ny\n</parameter>\n</function>\n"),
            R"(`` f{"a": "3", "b": [1, 2], "c": "\"x\ny"})");
  EXPECT_EQ(coder("<function=get-it></function>"), "`` get-it{}");
  for (const std::string text : {"<function=f>", "<function=f>x</function>", "<function></function>", "f", "",
                                 "<function=f><parameter=a>3</parameter><parameter=a>3</parameter></function>"})
    EXPECT_EQ(coder(text), "`<tool_call>" + text + "</tool_call>`");
  use.syntax = tool_syntax_for("glm45", "");
  EXPECT_EQ(coder("f\n<arg_key>a</arg_key>\n<arg_value>true</arg_value>\n<arg_key>b</arg_key>\n"
                  "<arg_value>true</arg_value>\n"),
            R"(`` f{"a": "true", "b": true})");
  EXPECT_EQ(coder("get-it"), "`` get-it{}");
  // What comes of a call before it is cut may be a call, too, but another one.
  for (const std::string cut : {"<tool_call>get-it", "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>\n<"})
    expect_content("glm45", cut);
  for (const std::string text : {"f\n<arg_key>a</arg_key>", "<arg_key>a</arg_key><arg_value></arg_value>", ""})
    EXPECT_EQ(coder(text), "`<tool_call>" + text + "</tool_call>`");
}

TEST(AutoCalls, Deepseek) {
  const auto read = [&](const std::string& text) {
    return read_all(auto_use("deepseek_v3"), "Hm. <｜tool▁calls▁begin｜>" + text + "<｜tool▁calls▁end｜>");
  };
  EXPECT_EQ(read("<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n"
                 "<｜tool▁call▁begin｜>get-it<｜tool▁sep｜>{}<｜tool▁call▁end｜>"),
            R"(`Hm.` f{"a": 1} get-it{})");
  for (const std::string text :
       {"", "<｜tool▁call▁begin｜>f<｜tool▁call▁end｜>", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>3<｜tool▁call▁end｜>"})
    EXPECT_EQ(read(text), "`Hm. <｜tool▁calls▁begin｜>" + text + "<｜tool▁calls▁end｜>`");
}

TEST(AutoCalls, GraniteEndsWithItsJson) {
  const auto read = [](const std::string& text) { return read_all(auto_use("granite"), text); };
  const std::string f = R"([{"name": "f", "arguments": {"a": "]<tool_call>"}}])";
  const std::string both = R"([{"name": "f"}, {"name": "get-it", "arguments": {}}])";
  EXPECT_EQ(read("<|tool_call|>" + f), R"(`` f{"a": "]<tool_call>"})");
  EXPECT_EQ(read("I see.\n<tool_call> \n" + both + "\nSo. <|tool_call|>" + both),
            "`I see.\nSo.` f{} get-it{} f{} get-it{}");
  for (const std::string text :
       {"<|tool_call|>", "<|tool_call|>[{\"name\": \"f\"}", "<|tool_call|> none", "<|tool_call|>[]",
        "a <tool_call>[{\"name\": \"h\"}] b", "<tool_call>{\"name\": \"f\"}", "<|tool_cal"})
    expect_content("granite", text);
  EXPECT_EQ(read("<|tool_call|><tool_call>" + f), R"(`<|tool_call|>` f{"a": "]<tool_call>"})");
  EXPECT_EQ(read_all(auto_use("granite-20b-fc"), R"(<function_call> {"name": "f"}<function_call>{"name": "get-it"} )"),
            "`` f{} get-it{}");
}

TEST(AutoCalls, HunyuanErnieAndCohere) {
  EXPECT_EQ(
      read_all(
          auto_use("hunyuan_a13b"),
          R"(Hm.<tool_calls>[{"name": "f", "arguments": {"a": "</tool_calls>"}}, {"name": "get-it"}]</tool_calls>)"),
      R"(`Hm.` f{"a": "</tool_calls>"} get-it{})");
  expect_content("hunyuan_a13b", R"(<tool_calls>{"name": "f"}</tool_calls>)");
  for (const char* syntax : {"ernie45", "granite4"})
    EXPECT_EQ(read_all(auto_use(syntax), "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"),
              R"(`` f{"a": 1})");
  for (const char* syntax : {"cohere_command3", "cohere_command4"}) {
    EXPECT_EQ(read_all(auto_use(syntax),
                       R"(<|START_ACTION|>[
    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}},
    {"tool_call_id": "1", "tool_name": "get-it", "parameters": {}}
]<|END_ACTION|>)"),
              R"(`` f{"a": 1} get-it{})");
    expect_content(syntax, R"(<|START_ACTION|>[{"name": "f", "parameters": {}}]<|END_ACTION|>)");
  }
}

TEST(AutoCalls, Gemma) {
  ToolUse use = auto_use("gemma4");
  use.strings.emplace("f", "a");
  const auto read = [&](const std::string& text) { return read_all(use, "<|tool_call>" + text + "<tool_call|>"); };
  EXPECT_EQ(
      read(R"(call:f{a:<|"|>it's "so", {1}<|"|>,b:3,c:[true, null,-1.5e3,<|"|><|"|>],d:{x:{},<|"|>y z<|"|>:[]}})"),
      R"(`` f{"a": "it's \"so\", {1}", "b": 3, "c": [true, null, -1.5e3, ""], "d": {"x": {}, "y z": []}})");
  EXPECT_EQ(read("call:get-it{}<tool_call|>\n<|tool_call>call: f { a : 3 , b : so it is , c:{a:3} }"),
            R"(`` get-it{} f{"a": "3", "b": "so it is", "c": {"a": 3}})");
  const std::string deep(40, '['), end(40, ']');
  for (const std::string text :
       {"call:f", "f{}", "call:h{}", "call:f{} x", "call:f{a}", "call:f{a:}", "call:f{:1}", "call:f{a:1,}",
        "call:f{a:1,a:2}", "call:f{a:[1}", "call:f{a:<|\"|>x}", "call:f{a:1]", "call:f{a:{}x}", ""})
    EXPECT_EQ(read(text), "`<|tool_call>" + text + "<tool_call|>`");
  EXPECT_EQ(read("call:f{a:" + deep + end + "}"), "`<|tool_call>call:f{a:" + deep + end + "}<tool_call|>`");
}

// What cannot come to be a call any more comes at once.
TEST(AutoCalls, TextsInBracketsAreNotHeldBack) {
  for (const auto& [syntax, text, held] :
       std::vector<std::array<const char*, 3>>{{"pythonic", "[1] See", "[1"},
                                               {"pythonic", "[f(a='x'), g", "[f(a='\\u00"},
                                               {"pythonic", "[f()] and", "[f()]<|python_e"},
                                               {"llama3_json", "{\"a\": [1]} ", "{\"name\": \"f\""}}) {
    const ToolUse use = auto_use(syntax);
    EXPECT_EQ(make_tool_call_reader(use)->push(held).content, "") << held;
    const bool known = make_tool_call_reader(use)->push(text).content == text;
    EXPECT_EQ(known, std::string(text).find(", g") == std::string::npos) << text;
  }
}

TEST(AutoCalls, AtMostOneIfThatIsAskedFor) {
  ToolUse use = auto_use("hermes");
  use.parallel = false;
  EXPECT_EQ(read_all(use, R"(<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "get-it"}</tool_call>)"),
            "`` f{}");
}

TEST(AutoCalls, TheTemplateShowsHowTheyAreWritten) {
  const auto name = [](const char* source) {
    const ToolSyntax* syntax = tool_syntax_for("auto", source);
    return syntax ? std::string(syntax->name) : "none";
  };
  EXPECT_EQ(name("{{ '<tool_call>\\n' }}"), "hermes");
  EXPECT_EQ(name("{{ '<tool_call>\\n<function=' }}"), "qwen3_coder");
  EXPECT_EQ(name("{{ '[TOOL_CALLS]' }}"), "mistral");
  EXPECT_EQ(name("{{ '[func_name1(param=value), ...]' }}"), "pythonic");
  EXPECT_EQ(name("{{ '<|channel|>analysis' }}"), "openai");
  EXPECT_EQ(name("respond with <|tool_call|> followed by a list"), "granite");
  EXPECT_EQ(name("{{ '<function_call> ' }}"), "granite-20b-fc");
  EXPECT_EQ(name("{{ '<tool_calls>[{...' }}"), "hunyuan_a13b");
  EXPECT_EQ(name("<|START_ACTION|>["), "cohere_command3");
  EXPECT_EQ(name("{{ '<|tool_call>call:' }}"), "gemma4");
  EXPECT_EQ(name("{{ m.content }}"), "none");
  EXPECT_EQ(tool_syntax_for("none", "<tool_call>"), nullptr);
  EXPECT_EQ(tool_syntax_for("mistral", "<tool_call>")->name, "mistral");
  EXPECT_THROW(tool_syntax_for("other", ""), Error);
}

// Special tokens that calls are read by are part of the text, and others are not.
TEST(AutoCalls, AreReadByTheirTokens) {
  json file = json::parse(std::ifstream(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json"));
  int id = 561;
  for (const char* name : {"<tool_call>", "</tool_call>", "<|other|>"})
    file["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}, {"normalized", false}});
  const Tokenizer tokenizer = Tokenizer::from_json(file.dump());
  for (const bool stream : {false, true}) {
    GenerationRequest request;
    request.api = Api::kChat;
    request.prompts.push_back({1, 2, 3});
    request.stream = stream;
    request.tools = auto_use("hermes");
    Exchange exchange(request, tokenizer);
    for (const std::int32_t token : tokenizer.encode(R"(Yes<|other|> <tool_call>{"name": "f"}</tool_call>)"))
      exchange.generation.take(0, {1, token});
    exchange.generation.take(0, {1, 0, FinishReason::kStop});
    if (stream) {
      EXPECT_THAT(exchange.reply->stream, testing::HasSubstr(R"("function":{"name":"f","arguments":"{}"}})"));
      EXPECT_THAT(exchange.reply->stream, testing::HasSubstr(R"("finish_reason":"tool_calls")"));
      continue;
    }
    json choice = json::parse(exchange.reply->responses.at(0).body)["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    json call = choice["message"]["tool_calls"][0];
    call.erase("id");
    EXPECT_EQ(call, (json{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", "{}"}}}}));
    EXPECT_EQ(choice["message"]["content"], "Yes");
  }
}

}  // namespace
}  // namespace foe
