#include "server/api/tool_syntax.h"

#include <algorithm>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "server/api/gemma_calls.h"
#include "server/api/harmony.h"
#include "server/api/json_scanner.h"
#include "server/api/json_text.h"
#include "server/api/python_calls.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;
using Calls = std::optional<std::vector<WrittenCall>>;

std::optional<json> parsed(std::string_view text) {
  try {
    return parse_ordered_json(text, "");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Reads an object with a name and arguments, which some models call parameters.
std::optional<WrittenCall> call_in(std::string_view text, const char* name_key = "name") {
  const std::optional<json> object = parsed(text);
  if (!object || !object->is_object()) return std::nullopt;
  const auto name = object->find(name_key);
  if (name == object->end() || !name->is_string()) return std::nullopt;
  std::string_view arguments = value_of(text, "arguments");
  if (arguments.empty()) arguments = value_of(text, "parameters");
  const std::optional<std::string> read = arguments_in(arguments);
  if (!read) return std::nullopt;
  return WrittenCall{name->get<std::string>(), *read};
}

Calls one_call(std::string_view text, const ToolUse&) {
  const std::optional<WrittenCall> call = call_in(trim(text));
  if (!call) return std::nullopt;
  return std::vector{*call};
}

// Reads an array of calls.
Calls calls_in_array(std::string_view text, const char* name_key = "name") {
  const std::optional<json> array = parsed(text);
  if (!array || !array->is_array() || array->empty()) return std::nullopt;
  std::vector<WrittenCall> calls;
  for (const std::string_view item : items_of(text)) {
    const std::optional<WrittenCall> call = call_in(item, name_key);
    if (!call) return std::nullopt;
    calls.push_back(*call);
  }
  return calls;
}

// Granite and Hunyuan.
Calls array_of_calls(std::string_view text, const ToolUse&) {
  return calls_in_array(trim(text));
}

// Cohere's Command: an array of calls, each with an id of its own besides, which nobody needs.
Calls cohere_calls(std::string_view text, const ToolUse&) {
  return calls_in_array(trim(text), "tool_name");
}

// Llama 3: one object or several, with semicolons between them, perhaps behind a token that says so.
Calls llama_calls(std::string_view text, const ToolUse&) {
  constexpr std::string_view kTag = "<|python_tag|>";
  text = trim(text);
  if (text.starts_with(kTag)) text = trim(text.substr(kTag.size()));
  std::vector<WrittenCall> calls;
  while (text.starts_with('{')) {
    JsonScanner scanner;
    const auto end = std::find_if(text.begin(), text.end(), [&](char c) { return scanner.ends_with(c); });
    if (end == text.end()) return std::nullopt;
    const auto size = static_cast<std::size_t>(end - text.begin()) + 1;
    const std::optional<WrittenCall> call = call_in(text.substr(0, size));
    if (!call) return std::nullopt;
    calls.push_back(*call);
    text = trim(text.substr(size));
    if (text.starts_with(';'))
      text = trim(text.substr(1));
    else
      break;
  }
  return text.empty() && !calls.empty() ? Calls(calls) : std::nullopt;
}

// Whether the first object may still come to be a call.
bool may_begin_llama_calls(std::string_view text) {
  text = trim(text);
  if (!text.starts_with('{')) return true;
  JsonScanner scanner;
  const auto end = std::find_if(text.begin(), text.end(), [&](char c) { return scanner.ends_with(c); });
  return end == text.end() || call_in(text.substr(0, static_cast<std::size_t>(end - text.begin()) + 1));
}

// Mistral: an array of calls or, since its tokenizer's version 11, the name and then the arguments, perhaps with tokens
// between them.
Calls mistral_calls(std::string_view text, const ToolUse&) {
  text = trim(text);
  if (text.starts_with('[')) return calls_in_array(text);
  const std::size_t begin = text.find('{');
  if (begin == text.npos) return std::nullopt;
  std::string_view name = text.substr(0, begin);
  name = trim(name.substr(0, name.find('[')));  // [CALL_ID] and [ARGS]
  const std::optional<std::string> arguments = arguments_in(text.substr(begin));
  if (name.empty() || !arguments) return std::nullopt;
  return std::vector{WrittenCall{std::string(name), *arguments}};
}

// Takes `begin`, and what comes up to `end`, from the front of the text, and white space behind it. Nothing if it is
// something else.
std::optional<std::string_view> take_between(std::string_view& text, std::string_view begin, std::string_view end) {
  const std::size_t at = text.starts_with(begin) ? text.find(end, begin.size()) : text.npos;
  if (at == text.npos) return std::nullopt;
  const std::string_view inner = text.substr(begin.size(), at - begin.size());
  text = trim(text.substr(at + end.size()));
  return inner;
}

// Returns a call whose arguments are written as texts: those that the tool's schema has as strings are strings, and of
// others those that are not JSON.
Calls call_of_texts(const std::string& name, const std::vector<std::pair<std::string, std::string>>& texts,
                    const ToolUse& use) {
  std::string arguments;
  for (const auto& [key, text] : texts) {
    const bool is_string = use.strings.contains({name, key}) || !parsed(text);
    arguments += fmt::format("{}{}: {}", arguments.empty() ? "{" : ", ", json_text(key),
                             is_string ? json_text(text) : std::string(trim(text)));
  }
  if (!arguments.empty()) arguments += '}';
  const std::optional<std::string> read = arguments_in(arguments);  // a key may be there twice
  if (!read) return std::nullopt;
  return std::vector{WrittenCall{name, *read}};
}

// Qwen3-Coder: <function=NAME> with <parameter=KEY> in it, whose value has a line end before and behind it.
Calls qwen3_coder_calls(std::string_view text, const ToolUse& use) {
  text = trim(text);
  std::optional<std::string_view> body = take_between(text, "<function=", "</function>");
  if (!body || !text.empty() || body->find('>') == body->npos) return std::nullopt;
  const std::string name(trim(body->substr(0, body->find('>'))));
  std::vector<std::pair<std::string, std::string>> texts;
  std::string_view rest = trim(body->substr(body->find('>') + 1));
  while (!rest.empty()) {
    const auto parameter = take_between(rest, "<parameter=", "</parameter>");
    if (!parameter || parameter->find('>') == parameter->npos) return std::nullopt;
    std::string_view value = parameter->substr(parameter->find('>') + 1);
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    texts.emplace_back(trim(parameter->substr(0, parameter->find('>'))), value);
  }
  return call_of_texts(name, texts, use);
}

// GLM-4.5: the name, and then keys and values in turns.
Calls glm_calls(std::string_view text, const ToolUse& use) {
  const std::size_t end = std::min(text.find("<arg_key>"), text.size());
  const std::string name(trim(text.substr(0, end)));
  std::string_view rest = trim(text.substr(end));
  std::vector<std::pair<std::string, std::string>> texts;
  while (!rest.empty()) {
    const auto key = take_between(rest, "<arg_key>", "</arg_key>");
    const auto value = key ? take_between(rest, "<arg_value>", "</arg_value>") : std::nullopt;
    if (!value) return std::nullopt;
    texts.emplace_back(trim(*key), *value);
  }
  return call_of_texts(name, texts, use);
}

// DeepSeek: in V3 the type of tool, the name, and the arguments in a block of code; in V3.1 the name and the arguments.
Calls deepseek_calls(std::string_view text, const ToolUse&) {
  constexpr std::string_view kSeparator = "<｜tool▁sep｜>", kCode = "```json";
  std::vector<WrittenCall> calls;
  for (std::string_view rest = trim(text); !rest.empty();) {
    const auto call = take_between(rest, "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>");
    const std::size_t at = call ? call->find(kSeparator) : std::string_view::npos;
    if (at == std::string_view::npos) return std::nullopt;
    std::string_view name = call->substr(0, at), arguments = trim(call->substr(at + kSeparator.size()));
    if (const std::size_t code = arguments.find(kCode); !arguments.starts_with('{') && code != arguments.npos) {
      name = arguments.substr(0, code);
      arguments = trim(arguments.substr(code + kCode.size()));
      if (arguments.ends_with("```")) arguments = trim(arguments.substr(0, arguments.size() - 3));
    }
    const std::optional<std::string> read = arguments_in(arguments);
    if (!read) return std::nullopt;
    calls.push_back({std::string(trim(name)), *read});
  }
  return calls.empty() ? Calls() : calls;
}

}  // namespace

std::optional<std::string> arguments_in(std::string_view text) {
  if (trim(text).empty()) return "{}";
  std::optional<json> value = parsed(text);
  if (!value || !value->is_string())
    return value && value->is_object() ? std::optional(std::string(text)) : std::nullopt;
  std::string inner = value->get<std::string>();
  value = parsed(inner);
  return value && value->is_object() ? std::optional(inner) : std::nullopt;
}

std::span<const ToolSyntax> tool_syntaxes() {
  static const std::vector<std::string_view> kTags = {"<tool_call>", "</tool_call>"};
  static const std::vector<std::string_view> kGlmTags = {"<tool_call>", "</tool_call>", "<arg_key>",
                                                         "</arg_key>",  "<arg_value>",  "</arg_value>"};
  static const std::vector<std::string_view> kDeepseek = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                                                          "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                                                          "<｜tool▁sep｜>"};
  static const std::vector<std::string_view> kPython = {"<|python_start|>", "<|python_end|>", "<|python_tag|>"};
  static constexpr std::string_view kFunctionTag = "<function_call>";
  static const std::vector<std::string_view> kAction = {"<|START_ACTION|>", "<|END_ACTION|>"};
  static const ToolSyntax kRows[] = {
      {.name = "glm45",
       .in_source = "<arg_key>",
       .begin = kTags[0],
       .end = kTags[1],
       .needs_end = true,
       .markers = kGlmTags,
       .parse = glm_calls},
      {.name = "qwen3_coder",
       .in_source = "<function=",
       .begin = kTags[0],
       .end = kTags[1],
       .markers = kTags,
       .parse = qwen3_coder_calls},
      {.name = "hermes",
       .in_source = kTags[0],
       .begin = kTags[0],
       .end = kTags[1],
       .markers = kTags,
       .parse = one_call},
      {.name = "mistral",
       .in_source = "[TOOL_CALLS]",
       .begin = "[TOOL_CALLS]",
       .markers = {"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"},
       .short_ids = true,
       .parse = mistral_calls},
      {.name = "deepseek_v3",
       .in_source = kDeepseek[0],
       .begin = kDeepseek[0],
       .end = kDeepseek[1],
       .markers = kDeepseek,
       .parse = deepseek_calls},
      {.name = "deepseek_v31",
       .in_source = kDeepseek[0],
       .begin = kDeepseek[0],
       .end = kDeepseek[1],
       .markers = kDeepseek,
       .parse = deepseek_calls},
      {.name = "llama3_json",
       .in_source = R"("parameters": dictionary of argument name and its value)",
       .whole = "{",
       .markers = {"<|python_tag|>"},
       .parse = llama_calls,
       .may_begin = may_begin_llama_calls},
      {.name = "pythonic",
       .in_source = "[func_name1(",
       .whole = "[",
       .markers = kPython,
       .parse = python_calls,
       .may_begin = may_begin_python_calls},
      {.name = "openai", .in_source = "<|channel|>analysis", .markers = harmony_markers(), .harmony = true},
      {.name = "llama4_pythonic",
       .whole = "[",
       .markers = kPython,
       .parse = python_calls,
       .may_begin = may_begin_python_calls},
      {.name = "granite",
       .in_source = "<|tool_call|>",
       .begin = "<|tool_call|>",
       .also_begin = kTags[0],
       .ends_itself = true,
       .markers = {"<|tool_call|>", kTags[0]},
       .parse = array_of_calls},
      {.name = "granite-20b-fc",
       .in_source = kFunctionTag,
       .begin = kFunctionTag,
       .ends_itself = true,
       .markers = {kFunctionTag},
       .parse = one_call},
      {.name = "granite4", .begin = kTags[0], .end = kTags[1], .markers = kTags, .parse = one_call},
      {.name = "ernie45", .begin = kTags[0], .end = kTags[1], .markers = kTags, .parse = one_call},
      {.name = "hunyuan_a13b",
       .in_source = "<tool_calls>[",
       .begin = "<tool_calls>",
       .end = "</tool_calls>",
       .markers = {"<tool_calls>", "</tool_calls>"},
       .parse = array_of_calls},
      {.name = "cohere_command3",
       .in_source = kAction[0],
       .begin = kAction[0],
       .end = kAction[1],
       .markers = kAction,
       .parse = cohere_calls},
      {.name = "cohere_command4", .begin = kAction[0], .end = kAction[1], .markers = kAction, .parse = cohere_calls},
      {.name = "gemma4",
       .in_source = "<|tool_call>call:",
       .begin = "<|tool_call>",
       .end = "<tool_call|>",
       .markers = {"<|tool_call>", "<tool_call|>", kGemmaQuote},
       .parse = gemma_calls},
  };
  return kRows;
}

const ToolSyntax* tool_syntax_for(std::string_view name, std::string_view template_source) {
  if (name == "none") return nullptr;
  for (const ToolSyntax& row : tool_syntaxes())
    if (name == "auto" ? !row.in_source.empty() && template_source.find(row.in_source) != template_source.npos
                       : name == row.name)
      return &row;
  if (name == "auto") return nullptr;
  fail("expected one of {}, got {}", fmt::join(tool_syntax_names(), ", "), shorten(std::string(name)));
}

std::vector<std::string> tool_syntax_names() {
  std::vector<std::string> names = {"auto", "none"};
  for (const ToolSyntax& row : tool_syntaxes()) names.emplace_back(row.name);
  return names;
}

}  // namespace foe
