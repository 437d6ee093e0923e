// Reads the body of POST /v1/chat/completions.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "engine/sampler.h"
#include "server/api/generation_request.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t kMaxMessages = 4096;

// Joins content in parts, as some clients send it: [{"type": "text", "text": "..."}].
std::string join_parts(const json& parts) {
  std::string text;
  for (const json& part : parts) {
    const json* type = part.is_object() ? find_field(part, "type") : nullptr;
    const json* value = type && *type == "text" ? find_field(part, "text") : nullptr;
    if (!value || !value->is_string()) refuse("messages", "expected parts of the type text, got {}", excerpt(part));
    text += value->get<std::string>();
  }
  return text;
}

// Gives the contents of messages the form that the template reads: parts where it walks through them, otherwise texts.
void form_contents(json& messages, const ChatTemplate& chat_template, const json& variables) {
  for (json& message : messages) {
    const auto content = message.find("content");
    if (content == message.end()) continue;
    if (content->is_array()) {
      const std::string text = join_parts(*content);  // refuses other parts
      if (!chat_template.reads_parts(variables)) *content = text;
    } else if (content->is_string() && chat_template.needs_parts(variables)) {
      *content = json::array({{{"type", "text"}, {"text", *content}}});
    }
  }
}

// OpenAI's API has the arguments of a call as a text of JSON. Templates walk through them as an object.
void parse_arguments(json& message) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return;
  if (!calls->is_array()) refuse("messages", "expected tool_calls to be a list, got {}", excerpt(*calls));
  for (json& call : *calls) {
    const auto function = call.is_object() ? call.find("function") : call.end();
    if (!call.is_object() || function == call.end() || !function->is_object())
      refuse("messages", "expected tool_calls with a function, an object, got {}", excerpt(call));
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || arguments->is_null() || arguments->is_object()) continue;
    if (!arguments->is_string())
      refuse("messages", "expected arguments of a tool call to be an object, got {}", excerpt(*arguments));
    const std::string text = arguments->get<std::string>();
    json parsed = json::object();
    try {
      if (!text.empty()) parse_ordered_json(text, "arguments", parsed);
    } catch (const Error& error) {
      refuse("messages", "expected arguments of a tool call to be JSON, got {}: {}", excerpt(*arguments), error.what());
    }
    if (!parsed.is_object())
      refuse("messages", "expected arguments of a tool call to be an object, got {}", excerpt(*arguments));
    *arguments = std::move(parsed);
  }
}

// The template of gpt-oss has the reasoning before a call as `thinking`, and looks for its markers in any content.
void form_harmony_call(json& message) {
  const json* reasoning = find_field(message, "reasoning_content");
  if (!find_field(message, "tool_calls")) return;
  const json* content = find_field(message, "content");
  if (reasoning && (!content || *content == "") && !message.contains("thinking"))
    message["thinking"] = json(*reasoning);
  if (message.contains("content") && message["content"].is_null()) message["content"] = "";
}

// Templates read a message's reasoning as `reasoning_content`. Clients that know vLLM's name for it send `reasoning`,
// and those that send an answer back as it was may have null. Returns whether there is any.
bool name_reasoning(json& message) {
  for (const char* name : {"reasoning", "reasoning_content"})
    if (message.contains(name) && message[name].is_null()) message.erase(name);
  if (const json* text = find_field(message, "reasoning"); text && !message.contains("reasoning_content"))
    message["reasoning_content"] = json(*text);
  return message.contains("reasoning_content");
}

json read_messages(const json& object, bool harmony) {
  const json* value = find_field(object, "messages");
  if (!value || !value->is_array() || value->empty())
    refuse("messages", "expected a list of messages, got {}", value ? excerpt(*value) : "none");
  if (value->size() > kMaxMessages)
    refuse("messages", "expected at most {} messages, got {}", kMaxMessages, value->size());
  json messages = *value;
  for (json& message : messages) {
    const json* role = message.is_object() ? find_field(message, "role") : nullptr;
    if (!role || !role->is_string())
      refuse("messages", "expected messages with a role, a string, got {}", excerpt(message));
    const bool reasons = name_reasoning(message);
    const json* content = find_field(message, "content");
    if (content && !content->is_array() && !content->is_string())
      refuse("messages", "expected content to be a string or a list of parts, got {}", excerpt(*content));
    const bool empty = !content && !find_field(message, "tool_calls");
    if (empty && !reasons) refuse("messages", "expected messages with content, got {}", excerpt(message));
    if (empty) message["content"] = "";  // an answer that ended in its reasoning
    parse_arguments(message);
    if (harmony) form_harmony_call(message);
  }
  return messages;
}

void read_logprobs(const json& object, SamplingParams& sampling) {
  const bool wanted = read_bool(object, "logprobs", false);
  const int top = read_int(object, "top_logprobs", 0, kMaxLogprobs, 0);
  if (top > 0 && !wanted) refuse("top_logprobs", "expected it only with logprobs = true");
  sampling.logprobs = wanted ? top : -1;
}

std::string text_of(const json& message) {
  const json* content = find_field(message, "content");
  return !content ? "" : content->is_array() ? join_parts(*content) : content->get<std::string>();
}

// Returns where the reasoning of an answer to the prompt begins. `continued`, if not null, is the message that the
// answer continues.
ReasoningStart start_of_reasoning(const ReasoningSyntax* syntax, const std::string& prompt, const json& variables,
                                  const json* continued) {
  if (!syntax) return ReasoningStart::kNowhere;
  if (continued) return reasoning_start_within(*syntax, text_of(*continued));
  const auto is_off = [&](const char* name) { return variables.contains(name) && variables[name] == false; };
  return reasoning_start(*syntax, prompt, !is_off("enable_thinking") && !is_off("thinking"));
}

// A rule holds behind the reasoning if its marks are tokens. Otherwise it holds from the first token on, so that there
// is reasoning only if the rule allows the mark there.
void read_reasoning(const json& object, const ServedModel& model, ReasoningStart start, GenerationRequest& request) {
  const bool include = read_bool(object, "include_reasoning", true);
  if (!include && !model.reasoning)
    refuse("include_reasoning", "expected true, as this server does not read reasoning (--reasoning-parser)");
  constexpr const char* kBudget = "thinking_token_budget";
  const int budget = read_int(object, kBudget, 0, model.max_positions, -1);
  if (budget >= 0 && !model.reasoning)
    refuse(kBudget, "expected none, as this server does not read reasoning (--reasoning-parser), got {}", budget);
  request.reasoning = {model.reasoning, start, include};
  const bool rules = request.constraint.kind != Constraint::Kind::kNone;
  if ((!rules && budget < 0) || start == ReasoningStart::kNowhere) return;
  const auto begin = model.tokenizer.token_to_id(model.reasoning->begin);
  const auto end = model.tokenizer.token_to_id(model.reasoning->end);
  if (begin && end && std::max(*begin, *end) < model.vocab_size)
    request.reasoning_marks = {*begin, *end, start == ReasoningStart::kAtOnce, budget};
  else if (budget >= 0)
    refuse(kBudget, "expected none, as {} and {}, which this model writes around its reasoning, are no tokens of it",
           model.reasoning->begin, model.reasoning->end);
  else
    request.reasoning.start = ReasoningStart::kAtMark;
}

// Cuts what the template writes behind the content of the last message, which the answer continues.
void end_in_message(std::string& text, const json& message) {
  std::string last = text_of(message);
  std::size_t at = text.rfind(last);
  if (at == text.npos) {  // some templates write it without the spaces around it
    constexpr const char* kSpaces = " \t\r\n";
    last.erase(last.find_last_not_of(kSpaces) + 1);
    last.erase(0, last.find_first_not_of(kSpaces));
    at = text.rfind(last);
  }
  if (last.empty() || at == text.npos)
    refuse("continue_final_message", "expected a last message with content that the template writes as it is, got {}",
           excerpt(message));
  text.resize(at + last.size());
}

}  // namespace

ChatPrompt encode_chat(const json& object, const ServedModel& model) {
  json messages = read_messages(object, model.reasoning && model.reasoning->harmony);
  if (!model.chat_template.present())
    throw ApiError(
        400, "messages",
        "this model has no chat template; use /v1/completions, or start the server with --chat-template FILE");
  json variables = json::object();
  if (const json* given = find_field(object, "chat_template_kwargs")) {
    if (!given->is_object()) refuse("chat_template_kwargs", "expected an object, got {}", excerpt(*given));
    variables = *given;
    if (variables.contains("messages")) refuse("chat_template_kwargs", "expected messages as a field of the request");
  }
  const bool continues = read_bool(object, "continue_final_message", false);
  const bool begins = read_bool(variables, "add_generation_prompt", !continues);
  const ChatTemplateOptions options{.add_generation_prompt = read_bool(object, "add_generation_prompt", begins)};
  if (continues && options.add_generation_prompt)
    refuse("continue_final_message", "expected it without add_generation_prompt = true");
  for (const char* name : {"tools", "documents"})
    if (const json* list = find_field(object, name)) {
      if (!list->is_array()) refuse(name, "expected a list, got {}", excerpt(*list));
      variables[name] = *list;
    }
  if (const json* effort = find_field(object, "reasoning_effort")) {
    if (!effort->is_string()) refuse("reasoning_effort", "expected a string, got {}", excerpt(*effort));
    variables["reasoning_effort"] = *effort;
  }
  const json last = messages.back();
  form_contents(messages, model.chat_template, variables);
  std::string text;
  try {
    text = model.chat_template.render(messages, variables, options);
  } catch (const Error& error) {
    throw ApiError(400, "messages", error.what());
  }
  if (continues) end_in_message(text, last);
  // The template has written the special tokens into the text.
  const EncodeOptions encoding{.add_special_tokens = read_bool(object, "add_special_tokens", false)};
  // As vLLM has it, the content of the last message, if the answer is of the same role.
  const bool same_role = !options.add_generation_prompt || last["role"] == "assistant";
  return {encode_prompt(text, "messages", model, encoding),
          start_of_reasoning(model.reasoning, text, variables, continues ? &last : nullptr),
          read_bool(object, "echo", false) && same_role ? text_of(last) : ""};
}

GenerationRequest parse_chat_request(std::string_view body, const ServedModel& model) {
  const JsonBody object = parse_object(body);
  GenerationRequest request = read_chat_request(object, model);
  check_size(request, model);
  return request;
}

GenerationRequest read_chat_request(const json& object, const ServedModel& model) {
  GenerationRequest request;
  request.api = Api::kChat;
  read_common(object, model, request);
  read_logprobs(object, request.sampling);
  read_logprob_tokens(object, model, request.sampling);
  ChatPrompt prompt = encode_chat(object, model);
  request.echoed = std::move(prompt.echoed);
  read_reasoning(object, model, prompt.reasoning, request);
  request.prompts.push_back(truncated(object, model, std::move(prompt.ids)));
  request.sampling.prompt_logprobs = request.prompt_logprobs;
  int rest = std::max(1, model.max_positions - static_cast<int>(request.prompts[0].size()));
  rest = std::min(rest, model.defaults.max_tokens.value_or(rest));
  const int max_tokens = read_int(object, "max_tokens", 1, model.max_positions, rest);
  request.max_tokens = read_int(object, "max_completion_tokens", 1, model.max_positions, max_tokens);
  return request;
}

}  // namespace foe
