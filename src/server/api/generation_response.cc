#include "server/api/generation_response.h"

#include <algorithm>
#include <span>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "server/api/json_text.h"
#include "server/http/api_error.h"
#include "text/utf8.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

std::string event(const std::string& data) {
  return "data: " + data + "\n\n";
}

json object_of(const AnswerHeader& header, bool chunk) {
  const char* object = header.api == Api::kCompletions ? "text_completion"
                       : chunk                         ? "chat.completion.chunk"
                                                       : "chat.completion";
  return {{"id", header.id}, {"object", object}, {"created", header.created}, {"model", header.model}};
}

// A token whose bytes are not valid UTF-8 is named by its bytes, as in OpenAI's API, so that no two tokens get the same
// name.
std::string name_of(const std::string& token) {
  std::string text;
  append_lossy_utf8(text, token, true);
  if (text == token) return token;
  text = "bytes:";
  for (const char c : token) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

// The logprobs of a completion: arrays with an element for each token.
json completion_logprobs(const std::vector<TokenReport>& tokens) {
  json reports{{"text_offset", json::array()},
               {"token_logprobs", json::array()},
               {"tokens", json::array()},
               {"top_logprobs", json::array()}};
  for (const TokenReport& t : tokens) {
    reports["text_offset"].push_back(t.offset);
    reports["tokens"].push_back(name_of(t.token));
    reports["token_logprobs"].push_back(t.logprob ? json(*t.logprob) : json(nullptr));
    json top = json::object();
    for (const auto& [token, logprob] : t.top) top.emplace(name_of(token), logprob);
    if (t.logprob) top.emplace(name_of(t.token), *t.logprob);
    reports["top_logprobs"].push_back(t.logprob ? top : json(nullptr));
  }
  return reports;
}

json chat_token(const std::string& token, float logprob) {
  json bytes = json::array();
  for (const char c : token) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", name_of(token)}, {"logprob", logprob}, {"bytes", bytes}};
}

json logprobs_of(Api api, const ChoicePiece& choice) {
  if (!choice.logprobs) return nullptr;
  return api == Api::kChat ? json{{"content", chat_token_reports(*choice.logprobs)}}
                           : completion_logprobs(*choice.logprobs);
}

json prompt_ids_of(const ChoicePiece& choice) {
  return choice.prompt_token_ids ? json(*choice.prompt_token_ids) : json(nullptr);
}

std::string prompt_token_text(const Tokenizer& tokenizer, std::int32_t token, float logprob, int rank) {
  std::string name;
  append_lossy_utf8(name, tokenizer.token_bytes(token), /*last=*/true);
  return fmt::format("\"{}\":", token) +
         json_text({{"logprob", logprob}, {"rank", rank}, {"decoded_token", std::move(name)}});
}

// They may name the whole vocabulary at each place, so only one token at a time is made a JSON value.
std::string prompt_logprobs_text(const std::optional<PromptReport>& report) {
  if (!report) return "null";
  std::string text = "[null";
  for (std::size_t i = 0; i < report->entries.size(); ++i) {
    const LogprobEntry& entry = report->entries[i];
    const std::int32_t token = (*report->prompt)[i + 1];
    const std::span likely = std::span(entry.top).first(std::min<std::size_t>(report->most, entry.top.size()));
    const auto own = std::ranges::find(likely, token, &TokenLogprob::token);
    const int rank = own == likely.end() ? entry.rank : static_cast<int>(own - likely.begin()) + 1;
    text += ",{" + prompt_token_text(report->tokenizer, token, entry.logprob, rank);
    for (std::size_t k = 0; k < likely.size(); ++k)
      if (likely[k].token != token)
        text += ',' + prompt_token_text(report->tokenizer, likely[k].token, likely[k].logprob, static_cast<int>(k) + 1);
    text += '}';
  }
  return text + ']';
}

std::string with_prompt_logprobs(std::string object, const ChoicePiece& choice) {
  return with_member(std::move(object), "prompt_logprobs", prompt_logprobs_text(choice.prompt_logprobs));
}

// Calls as a message has them or, with `chunk`, as pieces: with an index, and id and name only in the first one.
json calls_of(const std::vector<ToolCallPiece>& calls, bool chunk) {
  json list = json::array();
  for (const ToolCallPiece& piece : calls) {
    json call = json::object(), function = json::object();
    if (chunk) call["index"] = piece.index;
    if (!piece.name.empty()) {
      call["id"] = piece.id;
      call["type"] = "function";
      function["name"] = piece.name;
    }
    function["arguments"] = piece.arguments;
    call["function"] = std::move(function);
    list.push_back(std::move(call));
  }
  return list;
}

// Adds the reasoning under both names that clients read: DeepSeek's and vLLM's.
void add_reasoning(json& message, const json& text) {
  message["reasoning_content"] = text;
  message["reasoning"] = text;
}

json delta_of(const ChoicePiece& choice) {
  json delta = json::object();
  if (!choice.reasoning.empty()) add_reasoning(delta, choice.reasoning);
  if (!choice.text.empty()) delta["content"] = choice.text;
  if (!choice.calls.empty()) delta["tool_calls"] = calls_of(choice.calls, true);
  return delta;
}

json message_of(const AnswerHeader& header, const ChoicePiece& choice) {
  const bool must_call = header.tools == ToolChoice::kRequired || header.tools == ToolChoice::kNamed;
  json message{{"role", "assistant"}, {"content", choice.text}};
  if (!choice.calls.empty()) message["tool_calls"] = calls_of(choice.calls, false);
  if (!must_call && choice.text.empty() && !(choice.calls.empty() && choice.reasoning.empty()))
    message["content"] = nullptr;
  if (header.reasoning || !choice.reasoning.empty())
    add_reasoning(message, choice.reasoning.empty() ? json(nullptr) : json(choice.reasoning));
  return message;
}

// As with OpenAI and vLLM, a call of the one named tool ends with "stop".
const char* finish_reason_of(const AnswerHeader& header, const ChoicePiece& choice) {
  const bool calls = choice.ends_in_calls && header.tools != ToolChoice::kNamed;
  if (calls && *choice.finish == FinishReason::kStop) return "tool_calls";
  return to_string(*choice.finish);
}

json choice_of(const AnswerHeader& header, const ChoicePiece& choice, bool chunk) {
  json result{{"index", choice.index}};
  if (header.api == Api::kCompletions)
    result["text"] = choice.text;
  else if (chunk)
    result["delta"] = delta_of(choice);
  else
    result["message"] = message_of(header, choice);
  result["logprobs"] = logprobs_of(header.api, choice);
  result["finish_reason"] = choice.finish ? json(finish_reason_of(header, choice)) : json(nullptr);
  // As with vLLM, a whole answer has null for what was not asked for.
  if (choice.token_ids || !chunk) result["token_ids"] = choice.token_ids ? json(*choice.token_ids) : json(nullptr);
  if (header.api == Api::kCompletions) {
    if (choice.prompt_token_ids || !chunk) result["prompt_token_ids"] = prompt_ids_of(choice);
  }
  result["stop_reason"] = nullptr;
  if (const auto* text = std::get_if<std::string>(&choice.stopped_by)) result["stop_reason"] = *text;
  if (const auto* id = std::get_if<std::int32_t>(&choice.stopped_by)) result["stop_reason"] = *id;
  return result;
}

json usage_of(const AnswerUsage& usage) {
  json result{{"prompt_tokens", usage.prompt_tokens},
              {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
              {"completion_tokens", usage.completion_tokens},
              {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
  if (usage.reasoning_tokens) result["completion_tokens_details"] = {{"reasoning_tokens", *usage.reasoning_tokens}};
  return result;
}

std::string chunk_of(const AnswerHeader& header, json choices, bool null_usage, const std::optional<AnswerUsage>& usage,
                     const std::string& receipt = "", const json& more = json::object()) {
  json body = object_of(header, true);
  body["choices"] = std::move(choices);
  body.update(more);
  if (null_usage) body["usage"] = usage ? usage_of(*usage) : json(nullptr);
  return event(with_receipt(json_text(body), receipt));
}

}  // namespace

json chat_token_reports(const std::vector<TokenReport>& tokens) {
  json content = json::array();
  for (const TokenReport& t : tokens) {
    json report = chat_token(t.token, t.logprob.value_or(0.0f));
    report["top_logprobs"] = json::array();
    for (const auto& [token, logprob] : t.top) report["top_logprobs"].push_back(chat_token(token, logprob));
    content.push_back(std::move(report));
  }
  return content;
}

std::string answer_body(const AnswerHeader& header, const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) {
  // As a JSON value a choice takes many times the memory that it takes as text, so only one at a time is made.
  std::string body = json_text(object_of(header, false));
  body.pop_back();
  body += ",\"choices\":[";
  for (const ChoicePiece& choice : choices) {
    if (&choice != &choices.front()) body += ',';
    const std::string text = json_text(choice_of(header, choice, false));
    body += header.api == Api::kCompletions ? with_prompt_logprobs(text, choice) : text;
  }
  body += "],\"usage\":" + json_text(usage_of(usage));
  body += '}';
  if (header.api == Api::kChat)  // it has one prompt
    body = with_member(with_prompt_logprobs(std::move(body), choices.front()), "prompt_token_ids",
                       json_text(prompt_ids_of(choices.front())));
  return with_receipt(std::move(body), choices.back().receipt);
}

std::string role_chunk(const AnswerHeader& header, const ChoicePiece& choice, bool null_usage) {
  const json first{{"index", choice.index},
                   {"delta", {{"role", "assistant"}, {"content", ""}}},
                   {"logprobs", nullptr},
                   {"finish_reason", nullptr}};
  json prompt = json::object();
  if (choice.prompt_token_ids) prompt["prompt_token_ids"] = prompt_ids_of(choice);
  return chunk_of(header, json::array({first}), null_usage, choice.usage, "", prompt);
}

std::string answer_chunk(const AnswerHeader& header, const ChoicePiece& choice, bool null_usage) {
  return chunk_of(header, json::array({choice_of(header, choice, true)}), null_usage, choice.usage, choice.receipt);
}

std::string usage_chunk(const AnswerHeader& header, const AnswerUsage& usage, const std::string& receipt) {
  json body = object_of(header, true);
  body["choices"] = json::array();
  body["usage"] = usage_of(usage);
  return event(with_receipt(json_text(body), receipt));
}

std::string error_chunk(int status, const std::string& message) {
  return event(error_body(status, message));
}

std::string done_chunk() {
  return event("[DONE]");
}

std::string comment() {
  return ": waiting\n\n";
}

}  // namespace foe
