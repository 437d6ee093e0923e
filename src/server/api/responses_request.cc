// Reads the body of POST /v1/responses: a chat in the form of OpenAI's Responses API.
#include <initializer_list>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/json_text.h"
#include "server/api/known_fields.h"
#include "server/api/other_api.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr FieldName kResponsesNames[] = {{"messages", "input"},
                                         {"continue_final_message", "input"},
                                         {"max_tokens", "max_output_tokens"},
                                         {"max_completion_tokens", "max_output_tokens"},
                                         {"response_format", "text"},
                                         {"reasoning_effort", "reasoning"}};

// Returns the text, or the parts of an item's content, as the content of a chat's message.
json item_content(const json& item, const char* name) {
  const json* content = find_field(item, name);
  if (content && content->is_string()) return *content;
  if (!content || !content->is_array())
    refuse("input", "expected {}, a text or a list of parts, got {}", name, excerpt(item));
  json parts = json::array();
  for (const json& part : *content) {
    const json* type = part.is_object() ? find_field(part, "type") : nullptr;
    if (!type || (*type != "input_text" && *type != "output_text"))
      refuse("input", "expected parts of the type input_text or output_text, got {}", excerpt(part));
    require_members("input", part, {"type", "text", "annotations", "logprobs"});
    if (const json* annotations = find_field(part, "annotations"); annotations && *annotations != json::array())
      refuse("input", "expected a text without annotations, got {}", excerpt(*annotations));
    parts.push_back({{"type", "text"}, {"text", text_member("input", part, "text")}});
  }
  return parts;
}

bool is_assistants(const json& messages) {
  return !messages.empty() && messages.back().at("role") == "assistant";
}

// Returns the assistant's message at the end that has no text yet; a new one, if there is none.
json& assistant_without_text(json& messages) {
  if (!is_assistants(messages) || !messages.back().at("content").is_null() || messages.back().contains("tool_calls"))
    messages.push_back({{"role", "assistant"}, {"content", nullptr}});
  return messages.back();
}

void add_item_message(const json& item, json& messages) {
  require_members("input", item, {"type", "role", "content", "id", "status"});
  const std::string& role = text_member("input", item, "role");
  if (role != "user" && role != "assistant" && role != "system" && role != "developer")
    refuse("input", "expected the role user, assistant, system or developer, got {}", shorten(role));
  if (role == "assistant")
    assistant_without_text(messages)["content"] = item_content(item, "content");
  else
    messages.push_back({{"role", role}, {"content", item_content(item, "content")}});
}

// Calls belong to the assistant's message before them.
void add_item_call(const json& item, json& messages) {
  require_members("input", item, {"type", "id", "call_id", "name", "arguments", "status"});
  if (!is_assistants(messages)) messages.push_back({{"role", "assistant"}, {"content", nullptr}});
  json& calls = messages.back()["tool_calls"];
  if (calls.is_null()) calls = json::array();
  calls.push_back(
      {{"id", text_member("input", item, "call_id")},
       {"type", "function"},
       {"function",
        {{"name", text_member("input", item, "name")}, {"arguments", text_member("input", item, "arguments")}}}});
}

void add_item_output(const json& item, json& messages) {
  require_members("input", item, {"type", "id", "call_id", "output", "status"});
  messages.push_back({{"role", "tool"},
                      {"tool_call_id", text_member("input", item, "call_id")},
                      {"content", item_content(item, "output")}});
}

// The template gets the text of a reasoning item as that of the assistant's message that begins with it.
void add_item_reasoning(const json& item, json& messages) {
  require_members("input", item, {"type", "id", "summary", "content", "status"});
  std::string text;
  for (const char* name : {"content", "summary"}) {
    const json* parts = find_field(item, name);
    if (!parts || !text.empty()) continue;
    if (!parts->is_array()) refuse("input", "expected {} to be a list, got {}", name, excerpt(*parts));
    for (const json& part : *parts) {
      if (!part.is_object()) refuse("input", "expected parts, which are objects, got {}", excerpt(part));
      require_members("input", part, {"type", "text"});
      text += text_member("input", part, "text");
    }
  }
  if (!text.empty()) messages.push_back({{"role", "assistant"}, {"content", nullptr}, {"reasoning_content", text}});
}

void add_item(const json& item, json& messages) {
  if (!item.is_object()) refuse("input", "expected items, which are objects, got {}", excerpt(item));
  const json* type = find_field(item, "type");
  if (!type || *type == "message")
    add_item_message(item, messages);
  else if (*type == "function_call")
    add_item_call(item, messages);
  else if (*type == "function_call_output")
    add_item_output(item, messages);
  else if (*type == "reasoning")
    add_item_reasoning(item, messages);
  else
    refuse("input", "expected items of the type message, function_call, function_call_output or reasoning, got {}",
           excerpt(item));
}

void add_input(const json& object, json& chat) {
  json& messages = chat["messages"] = json::array();
  if (const json* instructions = find_field(object, "instructions")) {
    if (!instructions->is_string()) refuse("instructions", "expected a text, got {}", excerpt(*instructions));
    if (*instructions != "") messages.push_back({{"role", "system"}, {"content", *instructions}});
  }
  const json* input = find_field(object, "input");
  if (input && input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
    return;
  }
  if (!input || !input->is_array() || input->empty())
    refuse("input", "expected a text or a list of items, got {}", input ? excerpt(*input) : "none");
  for (const json& item : *input) add_item(item, messages);
  // As in vLLM, a message that was not finished goes on.
  const json* status = find_field(input->back(), "status");
  const bool unfinished = status && (*status == "incomplete" || *status == "in_progress");
  if (unfinished && is_assistants(messages) && !messages.back().contains("tool_calls"))
    chat["continue_final_message"] = true;
}

json function_tool(const json& tool) {
  const json* type = tool.is_object() ? find_field(tool, "type") : nullptr;
  if (!type || *type != "function")
    refuse("tools", "expected tools of the type function, as there are none on the server, got {}", excerpt(tool));
  require_members("tools", tool,
                  {"type", "name", "description", "parameters", "strict", "output_schema", "defer_loading",
                   "allowed_callers", "async"});
  check_tool_is_plain(tool);
  if (read_bool(tool, "async", false)) refuse("tools", "expected async = false, got true");
  json function = json::object();
  for (const char* name : {"name", "description", "parameters", "strict", "output_schema"})
    if (const json* value = find_field(tool, name)) function[name] = *value;
  return {{"type", "function"}, {"function", std::move(function)}};
}

json chosen_function(const json& choice) {
  if (!choice.is_object() || !find_field(choice, "type") || choice.at("type") != "function")
    refuse("tool_choice", "expected none, auto, required, {} or {}, got {}", R"({"type": "function", "name": ...})",
           R"({"type": "allowed_tools", "mode": ..., "tools": [...]})", excerpt(choice));
  require_members("tool_choice", choice, {"type", "name"});
  return {{"type", "function"}, {"function", {{"name", text_member("tool_choice", choice, "name")}}}};
}

void add_functions(const json& object, json& chat) {
  if (const json* tools = find_field(object, "tools")) {
    if (!tools->is_array()) refuse("tools", "expected a list, got {}", excerpt(*tools));
    json& list = chat["tools"] = json::array();
    for (const json& tool : *tools) list.push_back(function_tool(tool));
  }
  const json* choice = find_field(object, "tool_choice");
  if (!choice) return;
  chat["tool_choice"] = *choice;
  if (choice->is_string()) return;
  const json* type = choice->is_object() ? find_field(*choice, "type") : nullptr;
  if (!type || *type != "allowed_tools") {
    chat["tool_choice"] = chosen_function(*choice);
    return;
  }
  require_members("tool_choice", *choice, {"type", "mode", "tools"});
  json tools = json::array();
  for (const json& tool : member("tool_choice", *choice, "tools", json::value_t::array))
    tools.push_back(chosen_function(tool));
  chat["tool_choice"] = {
      {"type", "allowed_tools"},
      {"allowed_tools", {{"mode", text_member("tool_choice", *choice, "mode")}, {"tools", std::move(tools)}}}};
}

void add_text_format(const json& object, json& chat) {
  const json* text = find_field(object, "text");
  if (!text) return;
  if (!text->is_object()) refuse("text", "expected an object, got {}", excerpt(*text));
  require_members("text", *text, {"format", "verbosity"});
  if (const json* verbosity = find_field(*text, "verbosity"); verbosity && *verbosity != "medium")
    refuse("text", "expected no verbosity but medium, got {}", excerpt(*verbosity));
  const json* format = find_field(*text, "format");
  if (!format) return;
  if (!format->is_object()) refuse("text", "expected a format with a type, got {}", excerpt(*format));
  if (text_member("text", *format, "type") != "json_schema") {
    chat["response_format"] = *format;
    return;
  }
  json schema = *format;
  schema.erase("type");
  chat["response_format"] = {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}

void add_reasoning(const json& object, json& chat) {
  const json* reasoning = find_field(object, "reasoning");
  if (!reasoning) return;
  if (!reasoning->is_object()) refuse("reasoning", "expected an object, got {}", excerpt(*reasoning));
  require_members("reasoning", *reasoning, {"effort", "summary"});
  if (const json* summary = find_field(*reasoning, "summary"); summary && *summary != "auto")
    refuse("reasoning", "expected no summary but auto, as none is made, got {}", excerpt(*summary));
  if (const json* effort = find_field(*reasoning, "effort")) chat["reasoning_effort"] = *effort;
}

// What reasoning has is in the answer in plain text, so its encrypted form adds nothing.
void add_reports(const json& object, json& chat) {
  bool logprobs = false;
  if (const json* include = find_field(object, "include")) {
    if (!include->is_array()) refuse("include", "expected a list, got {}", excerpt(*include));
    for (const json& name : *include)
      if (name == "message.output_text.logprobs")
        logprobs = true;
      else if (name != "reasoning.encrypted_content")
        refuse("include", "expected message.output_text.logprobs or reasoning.encrypted_content, got {}",
               excerpt(name));
  }
  const json* top = find_field(object, "top_logprobs");
  if (logprobs) chat["logprobs"] = true;
  if (top && !logprobs && *top != 0)
    refuse("top_logprobs", "expected it only with message.output_text.logprobs in include");
  if (top && logprobs) chat["top_logprobs"] = *top;
}

// Returns what the reply repeats of the request.
json repeated_fields(const json& object) {
  json repeated{{"instructions", nullptr},
                {"max_tool_calls", nullptr},
                {"metadata", json::object()},
                {"parallel_tool_calls", true},
                {"previous_response_id", nullptr},
                {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
                {"service_tier", "default"},
                {"store", false},
                {"text", {{"format", {{"type", "text"}}}}},
                {"tool_choice", "auto"},
                {"tools", json::array()},
                {"top_logprobs", 0},
                {"truncation", "disabled"},
                {"user", nullptr}};
  for (auto& [name, value] : repeated.get_ref<json::object_t&>())
    if (const json* given = find_field(object, name.c_str()); given && name != "service_tier") value = *given;
  return repeated;
}

// Writes a request of the Responses API as the same chat in the form of OpenAI's chats.
void write_response_chat(json& object, json& chat) {
  check_fields(object, Api::kResponses);
  move_chat_fields(Api::kResponses, object, chat,
                   {"parallel_tool_calls", "chat_template_kwargs", "thinking_token_budget"});
  if (const json* most = find_field(object, "max_output_tokens")) chat["max_completion_tokens"] = *most;
  add_functions(object, chat);
  add_text_format(object, chat);
  add_reasoning(object, chat);
  add_reports(object, chat);
  add_input(object, chat);
}

}  // namespace

GenerationRequest parse_responses_request(std::string_view body, const ServedModel& model) {
  JsonBody object = parse_object(body), chat;
  json repeated = repeated_fields(object);
  write_response_chat(object, chat);
  GenerationRequest request = read_as_chat(chat, model, Api::kResponses, kResponsesNames);
  const auto number = [](float value) { return json::parse(fmt::format("{}", value)); };  // without a float's digits
  repeated["max_output_tokens"] = request.max_tokens;
  repeated["temperature"] = number(request.sampling.temperature);
  repeated["top_p"] = number(request.sampling.top_p);
  request.repeated = json_text(repeated);
  request.repeated = request.repeated.substr(1, request.repeated.size() - 2) + ",";
  return request;
}

}  // namespace foe
