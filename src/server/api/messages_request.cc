// Reads the bodies of POST /v1/messages and /v1/messages/count_tokens: a chat in Anthropic's form.
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/known_fields.h"
#include "server/api/messages_api.h"
#include "server/api/other_api.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr FieldName kMessagesNames[] = {{"stop", "stop_sequences"},
                                        {"response_format", "output_config"},
                                        {"reasoning_effort", "output_config"},
                                        {"continue_final_message", "messages"},
                                        {"parallel_tool_calls", "tool_choice"},
                                        {"thinking_token_budget", "thinking"}};

std::string type_of(const std::string& field, const json& block) {
  if (!block.is_object()) refuse(field, "expected blocks, which are objects, got {}", excerpt(block));
  return text_member(field, block, "type");
}

// Returns a text block as a part of a chat's message.
json text_part(const std::string& field, const json& block) {
  if (type_of(field, block) != "text") refuse(field, "expected blocks of the type text, got {}", excerpt(block));
  require_members(field, block, {"type", "text", "cache_control", "citations"});
  if (const json* citations = find_field(block, "citations"); citations && *citations != json::array())
    refuse(field, "expected a text without citations, got {}", excerpt(*citations));
  return {{"type", "text"}, {"text", text_member(field, block, "text")}};
}

// Returns a text, or text blocks, as the content of a chat's message.
json content_of(const std::string& field, const json& blocks) {
  if (blocks.is_string()) return blocks;
  if (!blocks.is_array()) refuse(field, "expected a text or a list of blocks, got {}", excerpt(blocks));
  json parts = json::array();
  for (const json& block : blocks) parts.push_back(text_part(field, block));
  return parts;
}

// As in vLLM, the block that Claude Code begins with is left out: it is of no use to a model, and as it differs in each
// request, nothing behind it could come from the prefix cache.
void add_system(const json& object, json& messages) {
  const json* system = find_field(object, "system");
  if (!system) return;
  json content = content_of("system", *system);
  if (content.is_array())
    std::erase_if(content.get_ref<json::array_t&>(), [](const json& part) {
      return part.at("text").get_ref<const std::string&>().starts_with("x-anthropic-billing-header");
    });
  if (!content.empty() && content != "") messages.push_back({{"role", "system"}, {"content", std::move(content)}});
}

// Whether a tool has failed, is_error, is said to the template, as all that a message has.
json tool_message(const json& block) {
  require_members("messages", block, {"type", "tool_use_id", "content", "is_error", "cache_control"});
  const json* content = find_field(block, "content");
  json message{{"role", "tool"},
               {"tool_call_id", text_member("messages", block, "tool_use_id")},
               {"content", content ? content_of("messages", *content) : json("")}};
  if (read_bool(block, "is_error", false)) message["is_error"] = true;
  return message;
}

// The results of tools are messages of their own, in the order of the blocks.
void add_user(const json& blocks, json& messages) {
  json parts = json::array();
  const auto add_text = [&] {
    if (!parts.empty()) messages.push_back({{"role", "user"}, {"content", std::exchange(parts, json::array())}});
  };
  for (const json& block : blocks) {
    if (type_of("messages", block) != "tool_result") {
      parts.push_back(text_part("messages", block));
      continue;
    }
    add_text();
    messages.push_back(tool_message(block));
  }
  add_text();
}

json call_of(const json& block) {
  require_members("messages", block, {"type", "id", "name", "input", "cache_control", "caller"});
  if (const json* caller = find_field(block, "caller"); caller && *caller != json{{"type", "direct"}})
    refuse("messages", "expected a call of the caller direct, got {}", excerpt(*caller));
  return {{"id", text_member("messages", block, "id")},
          {"type", "function"},
          {"function",
           {{"name", text_member("messages", block, "name")},
            {"arguments", member("messages", block, "input", json::value_t::object)}}}};
}

void add_assistant(const json& blocks, json& messages) {
  json parts = json::array(), calls = json::array();
  std::string thinking;
  for (const json& block : blocks) {
    const std::string type = type_of("messages", block);
    if (type == "thinking") {
      require_members("messages", block, {"type", "thinking", "signature"});
      thinking += text_member("messages", block, "thinking");
    } else if (type == "tool_use") {
      calls.push_back(call_of(block));
    } else {
      parts.push_back(text_part("messages", block));
    }
  }
  json message{{"role", "assistant"}, {"content", nullptr}};
  if (!parts.empty() || calls.empty()) message["content"] = std::move(parts);
  if (!thinking.empty()) message["reasoning_content"] = thinking;
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  messages.push_back(std::move(message));
}

void add_message(const json& message, json& messages) {
  if (!message.is_object()) refuse("messages", "expected messages, which are objects, got {}", excerpt(message));
  require_members("messages", message, {"role", "content"});
  const std::string& role = text_member("messages", message, "role");
  if (role != "user" && role != "assistant" && role != "system")
    refuse("messages", "expected the role user, assistant or system, got {}", shorten(role));
  const json* content = find_field(message, "content");
  if (!content || (!content->is_string() && (!content->is_array() || content->empty())))
    refuse("messages", "expected content, a text or a list of blocks, got {}", excerpt(message));
  if (content->is_string() || role == "system")
    messages.push_back({{"role", role}, {"content", content_of("messages", *content)}});
  else if (role == "user")
    add_user(*content, messages);
  else
    add_assistant(*content, messages);
}

json tool_of(const json& tool) {
  if (!tool.is_object()) refuse("tools", "expected tools, which are objects, got {}", excerpt(tool));
  if (const json* type = find_field(tool, "type"); type && *type != "custom")
    refuse("tools", "expected tools of the type custom, as there are none on the server, got {}", excerpt(*type));
  require_members("tools", tool,
                  {"type", "name", "description", "input_schema", "strict", "input_examples", "cache_control",
                   "eager_input_streaming", "defer_loading", "allowed_callers"});
  check_tool_is_plain(tool);
  json function = json::object();
  if (const json* name = find_field(tool, "name")) function["name"] = *name;
  if (const json* description = find_field(tool, "description")) function["description"] = *description;
  function["parameters"] = member("tools", tool, "input_schema", json::value_t::object);
  for (const char* name : {"strict", "input_examples"})
    if (const json* value = find_field(tool, name)) function[name] = *value;
  return {{"type", "function"}, {"function", std::move(function)}};
}

void add_tools(const json& object, json& chat) {
  if (const json* tools = find_field(object, "tools")) {
    if (!tools->is_array()) refuse("tools", "expected a list, got {}", excerpt(*tools));
    json& list = chat["tools"] = json::array();
    for (const json& tool : *tools) list.push_back(tool_of(tool));
  }
  const json* choice = find_field(object, "tool_choice");
  if (!choice) return;
  if (!choice->is_object()) refuse("tool_choice", "expected an object with a type, got {}", excerpt(*choice));
  require_members("tool_choice", *choice, {"type", "name", "disable_parallel_tool_use"});
  const std::string& type = text_member("tool_choice", *choice, "type");
  if (type == "auto" || type == "none")
    chat["tool_choice"] = type;
  else if (type == "any")
    chat["tool_choice"] = "required";
  else if (type == "tool")
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", text_member("tool_choice", *choice, "name")}}}};
  else
    refuse("tool_choice", "expected the type auto, any, tool or none, got {}", shorten(type));
  if (type != "tool" && find_field(*choice, "name"))
    refuse("tool_choice", "expected a name only with the type tool, got {}", excerpt(*choice));
  chat["parallel_tool_calls"] = !read_bool(*choice, "disable_parallel_tool_use", false);
}

// Reads a number of tokens that is smaller than that of the whole answer.
int read_budget(const json& budget, const json& chat) {
  const json* most = find_field(chat, "max_tokens");
  const bool valid = budget.is_number_integer() && budget >= 1 && (!most || !most->is_number() || budget < *most);
  if (!valid || budget > std::numeric_limits<int>::max())
    refuse("thinking", "expected budget_tokens of at least 1, and fewer than max_tokens, got {}", excerpt(budget));
  return budget.get<int>();
}

// Templates of models that can think or not have a variable for it.
void add_thinking(const json& object, json& chat) {
  const json* thinking = find_field(object, "thinking");
  if (!thinking) return;
  if (!thinking->is_object()) refuse("thinking", "expected an object with a type, got {}", excerpt(*thinking));
  require_members("thinking", *thinking, {"type", "display", "budget_tokens"});
  const std::string& type = text_member("thinking", *thinking, "type");
  const json* budget = find_field(*thinking, "budget_tokens");
  const bool enabled = type == "enabled";
  if (!enabled && type != "adaptive" && type != "disabled")
    refuse("thinking", "expected the type enabled, adaptive or disabled, got {}", excerpt(*thinking));
  if (enabled != (budget != nullptr))
    refuse("thinking", "expected budget_tokens with the type enabled, and with no other, got {}", excerpt(*thinking));
  if (enabled) chat["thinking_token_budget"] = read_budget(*budget, chat);
  if (const json* display = find_field(*thinking, "display"); display && *display != "summarized")
    refuse("thinking", "expected no display but summarized, got {}", excerpt(*display));
  set_template_variable(chat, "enable_thinking", type != "disabled");
}

void add_output_config(const json& object, json& chat) {
  const json* config = find_field(object, "output_config");
  if (!config) return;
  if (!config->is_object()) refuse("output_config", "expected an object, got {}", excerpt(*config));
  require_members("output_config", *config, {"effort", "format"});
  if (const json* effort = find_field(*config, "effort")) chat["reasoning_effort"] = *effort;
  const json* format = find_field(*config, "format");
  if (!format) return;
  if (!format->is_object() || text_member("output_config", *format, "type") != "json_schema")
    refuse("output_config", "expected a format of the type json_schema, got {}", excerpt(*format));
  require_members("output_config", *format, {"type", "schema"});
  chat["response_format"] = {
      {"type", "json_schema"},
      {"json_schema", {{"schema", member("output_config", *format, "schema", json::value_t::object)}}}};
}

// Writes a request of Anthropic's API as the same chat in OpenAI's.
void write_message_chat(json& object, json& chat) {
  check_fields(object, Api::kMessages);
  move_chat_fields(Api::kMessages, object, chat, {"chat_template_kwargs"});
  if (const json* stop = find_field(object, "stop_sequences")) {
    if (!stop->is_array()) refuse("stop_sequences", "expected a list of strings, got {}", excerpt(*stop));
    chat["stop"] = *stop;
  }
  add_tools(object, chat);
  add_thinking(object, chat);
  add_output_config(object, chat);
  json& messages = chat["messages"] = json::array();
  add_system(object, messages);
  const json* given = find_field(object, "messages");
  if (!given || !given->is_array() || given->empty())
    refuse("messages", "expected a list of messages, got {}", given ? excerpt(*given) : "none");
  for (const json& message : *given) add_message(message, messages);
  // An answer goes on from an assistant's message at the end.
  if (messages.back().at("role") != "assistant") return;
  if (find_field(messages.back(), "tool_calls"))
    refuse("messages", "expected the results of tools behind the calls in the last message, got none");
  chat["continue_final_message"] = true;
}

}  // namespace

GenerationRequest parse_messages_request(std::string_view body, const ServedModel& model) {
  JsonBody object = parse_object(body), chat;
  write_message_chat(object, chat);
  if (!find_field(chat, "max_tokens")) refuse("max_tokens", "expected how many tokens the answer may have, got none");
  return read_as_chat(chat, model, Api::kMessages, kMessagesNames);
}

std::string count_message_tokens(std::string_view body, const ServedModel& model) {
  JsonBody object = parse_object(body), chat;
  write_message_chat(object, chat);
  try {
    for (const char* name : {"receipt", "stream"})
      if (read_bool(chat, name, false)) refuse(name, "expected false where tokens are counted, got true");
    const std::size_t tokens = read_chat_request(chat, model).prompts[0].size();
    return json{{"input_tokens", tokens}, {"context_management", {{"original_input_tokens", tokens}}}}.dump();
  } catch (const ApiError& error) {
    throw renamed(error, kMessagesNames);
  }
}

}  // namespace foe
