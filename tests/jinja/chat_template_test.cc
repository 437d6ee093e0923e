// What the comparison with Python's Jinja (template_oracle_test.py) does not reach: files, limits, messages.
#include "jinja/chat_template.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string render(std::string_view source, const ordered_json& variables = {}) {
  return ChatTemplate::parse(source).render(ordered_json::array(), variables);
}

void expect_refused(std::string_view source, const std::string& message) {
  EXPECT_THAT([&] { render(source); }, ThrowsMessage<Error>(HasSubstr(message))) << source.substr(0, 200);
}

std::string times(std::string_view text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

TEST(ChatTemplate, RendersAConversation) {
  const auto chatml = ChatTemplate::parse(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\n"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n");
  const ordered_json messages = {{{"role", "user"}, {"content", "Hi {{ 1 }}"}}};
  EXPECT_EQ(chatml.render(messages), "<|im_start|>user\nHi {{ 1 }}<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chatml.render(messages, nullptr, {.add_generation_prompt = false}),
            "<|im_start|>user\nHi {{ 1 }}<|im_end|>\n");
}

TEST(ChatTemplate, HasTheVariablesOfTransformers) {
  EXPECT_EQ(render("{{ tools }} {{ documents is defined }} {{ bos_token is defined }}"), "None True False");
  EXPECT_EQ(ChatTemplate::parse("{{ bos_token }}", ordered_json{{"bos_token", "<s>"}}).render(ordered_json::array()),
            "<s>");
  EXPECT_EQ(render("{{ enable_thinking }}", {{"enable_thinking", false}}), "False");
  EXPECT_EQ(ChatTemplate::parse("{{ strftime_now('%Y') }}").render({}, nullptr, {.now = 86400 * 400}), "1971");
}

// As Python maps it: a character may become several, and a sigma at the end of a word is another letter.
TEST(ChatTemplate, MapsCase) {
  EXPECT_EQ(render("{{ 'straße ﬁn İ'|upper }}|{{ 'ΟΔΟΣ ΣΑ İ'|lower }}|{{ 'ﬁn ǆ'.title() }}|{{ 'ßa'|capitalize }}"),
            "STRASSE FIN İ|οδος σα i\u0307|Fin ǅ|Ssa");
}

TEST(ChatTemplate, PrintsMembersInTheirOrder) {
  EXPECT_EQ(render("{{ d|tojson }}", {{"d", {{"z", 1}, {"a", {1.0, "\u00e9"}}}}}),
            "{\"z\": 1, \"a\": [1.0, \"\u00e9\"]}");
}

class ModelFolder : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(dir_); }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(dir_ / name) << text; }
  ChatTemplate load() const { return ChatTemplate::load(dir_); }
  std::string rendered() const { return load().render(ordered_json::array()); }

  const std::filesystem::path dir_ =
      std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(ModelFolder, MayHaveATemplateForTools) {
  const ordered_json tools{{"tools", {{{"type", "function"}}}}}, none{{"tools", ordered_json::array()}};
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
                                                         {"name": "tool_use", "template": "{{ tools|length }} tools"}]})");
  EXPECT_EQ(load().render(ordered_json::array(), tools), "1 tools");
  EXPECT_EQ(load().render(ordered_json::array(), none), "plain");
  EXPECT_EQ(rendered(), "plain");
  std::filesystem::create_directory(dir_ / "additional_chat_templates");
  write("additional_chat_templates/tool_use.jinja", "from a file");
  write("chat_template.jinja", "from another");
  EXPECT_EQ(load().render(ordered_json::array(), tools), "from a file");
  EXPECT_EQ(rendered(), "from another");
}

TEST(ChatTemplate, SaysWhetherItReadsParts) {
  struct Case {
    const char* source;
    bool reads, needs;
  };
  for (const auto& [source, reads, needs] :
       {Case{"{% for m in messages %}{{ m.content }}{% endfor %}", false, false},
        {"{% for m in messages %}{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endfor %}", true, true},
        {"{% for m in messages %}{%- set content = m.content -%}{% if content is not string %}"
         "{% for p in content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
         true, false},
        {"{% for content in messages %}{% for p in content %}{% endfor %}{% endfor %}", false, false}}) {
    EXPECT_EQ(ChatTemplate::parse(source).reads_parts(nullptr), reads) << source;
    EXPECT_EQ(ChatTemplate::parse(source).needs_parts(nullptr), needs) << source;
  }
}

TEST_F(ModelFolder, NeedHaveNoTemplate) {
  EXPECT_FALSE(load().present());
  EXPECT_THAT([&] { rendered(); }, ThrowsMessage<Error>(HasSubstr("no chat template")));
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_FALSE(load().present());
}

TEST_F(ModelFolder, HasOneTemplateOrSeveral) {
  write("tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ bos_token + eos_token }}"})");
  EXPECT_EQ(rendered(), "<s></s>");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(rendered(), "d");
  write("chat_template.jinja", "file {{ bos_token }}");
  write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "config"})");
  EXPECT_EQ(rendered(), "file <s>");
  // Older folders have the special tokens in a file of their own.
  write("special_tokens_map.json", R"({"bos_token": {"content": "<bos>"}})");
  EXPECT_EQ(rendered(), "file <bos>");
  write("tokenizer_config.json", R"({"bos_token": "<s>", "added_tokens_decoder": {}})");
  EXPECT_EQ(rendered(), "file <s>");
}

TEST_F(ModelFolder, IsRefusedWithTheReason) {
  for (const auto& [config, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"{", "tokenizer_config.json: expected JSON, got: "},
           {R"({"chat_template": 1})", "chat_template: expected a string, got 1"},
           {R"({"chat_template": [{"name": "rag", "template": "r"}]})", "expected a template named 'default'"},
           {R"({"chat_template": [{"name": "default"}]})", "chat_template[0].template: expected a string"},
           {R"({"bos_token": 1})", "bos_token: expected a string, got 1"},
           {R"({"bos_token": {"x": 1}})", "bos_token.content: expected a string, got null"},
           {R"({"chat_template": "a\n{% if %}"})", "line 2: expected an expression, got '%}'"}}) {
    write("tokenizer_config.json", config);
    EXPECT_THAT([&] { load(); }, ThrowsMessage<Error>(HasSubstr(message)));
  }
  write("chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT([&] { load(); }, ThrowsMessage<Error>(HasSubstr("expected at most 1048576 bytes")));
}

TEST(ChatTemplate, SaysWhereAndWhatIsWrong) {
  expect_refused("\n\n{{ raise_exception('roles must alternate') }}", "chat template, line 3: roles must alternate");
  expect_refused("{% for x in [1] %}\n{{ x.y.z }}{% endfor %}", "line 2: the int has no attribute 'y'");
  expect_refused("{{ nothing.x }}", "'nothing' is undefined");
  expect_refused("{% include 'x' %}", "the statement 'include' is not supported");
  expect_refused("{{ 'a'|wordwrap }}", "the filter 'wordwrap' is not supported");
  expect_refused("{% call 1 %}{% endcall %}", "line 1: expected a call before the end of the tag, got '%}'");
  expect_refused("{% macro m(caller) %}{{ caller() }}{% endmacro %}", "a default value of the parameter 'caller'");
  expect_refused("{% for x in [1] %}{{ loop([2]) }}{% endfor %}", "expected a loop with 'recursive', to call it");
  expect_refused("{{ [].append(1) }}", "the method 'append' of a list is not allowed");
  expect_refused("\xff", "chat template");
  expect_refused("{{ 9223372036854775807 + 1 }}", "64 bits");
  expect_refused("{{ 9223372036854775808 }}", "64 bits");
  expect_refused("{{ (-9223372036854775807 - 1) // -1 }}", "64 bits");
  expect_refused("{{ -(-9223372036854775807 - 1) }}", "64 bits");
  expect_refused("{{ 10 ** 19 }}", "64 bits");
  EXPECT_THAT([] { render("{{ x }}", {{"x", UINT64_MAX}}); }, ThrowsMessage<Error>(HasSubstr("64 bits")));
}

TEST(ChatTemplate, StopsTemplatesThatRunOn) {
  const std::string loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}";
  expect_refused(loops + times("{% endfor %}", 3), "limit of");
  expect_refused(loops + "x" + times("{% endfor %}", 3), "limit of");
  expect_refused("{% for a in range(99999) %}{{ range(99999)|length }}{% endfor %}", "limit of");
  expect_refused("{% set s = 'a' * 9000000 %}{% for a in range(9999) %}{{ 'b' in s }}{% endfor %}", "limit of steps");
  expect_refused("{% set s = 'a' * 5000000 %}{{ ('a' * 2000000 + 'b') in s }}{{ s.rfind('b' + 'a' * 2000000) }}",
                 "limit of steps");
  expect_refused("{% set s = 'ab' * 4000000 %}{{ s.split('b')|length }}", "limit of");
  expect_refused("{% set l = range(99999)|list %}{{ (l + l)|unique|list|length }}", "limit of");
  expect_refused(loops + "{{ 'cba'|map('string')|list|sort|join }}" + times("{% endfor %}", 3), "limit of");
}

TEST(ChatTemplate, StopsTemplatesThatBlowUp) {
  expect_refused("{{ 'a' * 99999999999 }}", "limit of memory");
  expect_refused("{{ [1] * 99999999999 }}", "limit of memory");
  expect_refused("{{ ('a' * 99999).replace('', 'a' * 99999) }}", "limit of memory");
  expect_refused("{{ ('a' * 9999)|list|join('a' * 99999) }}", "limit of memory");
  expect_refused("{{ [1]|tojson(indent=99999999999) }}", "limit of memory");
  expect_refused("{{ 'a'|indent(99999999999, true) }}", "limit of memory");
  expect_refused("{{ range(99999999999) }}", "range: expected at most 100000 items");
  expect_refused("{{ strftime_now('%9999d') }}", "strftime_now");
  expect_refused("{% for i in range(99) %}{{ 'a' * 400000 }}{% endfor %}", "expected a text of at most 16777216 bytes");
  expect_refused("{% set s = 'a' * 1000000 %}{% for i in range(20) %}{{ s }}{% endfor %}",
                 "expected a text of at most 16777216 bytes");
  expect_refused("{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
                 "limit");
  // Shared halves: small to store, endless to print, compare or write as JSON.
  const std::string tree =
      "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(99) %}{% set n.a = [n.a, n.a] %}"
      "{% set n.b = [n.b, n.b] %}{% endfor %}";
  for (const char* use :
       {"{{ n.a }}", "{{ n.a == n.b }}", "{{ n.a < n.b }}", "{{ n.a|tojson }}", "{{ [n.b, n.a]|sort }}"}) {
    expect_refused(tree + use, "limit of");
  }
}

TEST(ChatTemplate, StopsWhatIsNestedTooDeep) {
  for (const auto& [open, close] : std::initializer_list<std::pair<const char*, const char*>>{{"(", ")"},
                                                                                              {"[", "]"},
                                                                                              {"{'a':", "}"},
                                                                                              {"not ", ""},
                                                                                              {"-", ""},
                                                                                              {"x[", "]"},
                                                                                              {"f(", ")"},
                                                                                              {"x if x else ", ""},
                                                                                              {"1|default(", ")"}}) {
    expect_refused("{{ " + times(open, 50000) + "1" + times(close, 50000) + " }}",
                   "expected expressions nested at most ");
  }
  for (const char* link : {".a", "[0]", "()", "|e", " + 1", " ** 1", " and 1", " is defined|e", " if 1"}) {
    expect_refused("{{ a" + times(link, 50000) + " }}", "expected expressions nested at most ");
  }
  expect_refused(times("{% if 1 %}", 20000) + times("{% endif %}", 20000), "blocks within each other");
  expect_refused(times("{% for x in y %}", 20000) + times("{% endfor %}", 20000), "blocks within each other");
  expect_refused("{{ 'a'|map(" + times("'map', ", 50000) + "'e')|list }}", "at most 60 arguments");
  expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "got deeper recursion");
  expect_refused("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "got deeper recursion");
  expect_refused("{% macro m() %}{% call m() %}{{ caller }}{% endcall %}{% endmacro %}{{ m() }}",
                 "got deeper recursion");
  expect_refused("{% macro m(x) %}{{ " + times("(", 90) + "m([x])" + times("|d)", 90) + " }}{% endmacro %}{{ m(1) }}",
                 "got deeper recursion");
  expect_refused("{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}", "200 deep");
  expect_refused("{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set n.x = {'a': n.x} %}{% endfor %}",
                 "200 deep");
  expect_refused(
      "{% set n = namespace(x=1) %}"
      "{% for i in range(9999) %}{% for x in [n.x] %}{% set n.x = loop %}{% endfor %}{% endfor %}",
      "200 deep");
  ordered_json deep;
  for (int i = 0; i < 300; ++i) deep = ordered_json::array({std::move(deep)});
  EXPECT_THAT([&] { render("", {{"x", deep}}); }, ThrowsMessage<Error>(HasSubstr("200 deep")));
}

// Python would keep the variables of the block.
TEST(ChatTemplate, RefusesCallsBehindTheBlockOfAMacroOrLoop) {
  for (const char* set : {"{% macro f() %}{% endmacro %}{% set n.f = f %}", "{% set n.f = loop %}"})
    expect_refused("{% set n = namespace() %}{% for y in [1] %}{% for x in [1] recursive %}" + std::string(set) +
                       "{% endfor %}{% endfor %}{{ n.f([]) }}",
                   "expected a call inside the block where it is defined, got one behind it");
}

TEST(ChatTemplate, HoldsWhatRefersToItself) {
  EXPECT_EQ(render("{% set n = namespace() %}{% set n.n = n %}{% set n.l = [n] %}{{ n.n.n.l[0] == n }}"), "True");
  expect_refused("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "got namespace");
  EXPECT_EQ(render("{% set n = namespace() %}{% for x in [1, 2] %}{% set n.l = loop %}{% endfor %}{{ n.l.index }}"),
            "3");
}

}  // namespace
}  // namespace foe
