#include "server/completion_response.h"

#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

// The text is valid UTF-8, but what an error quotes from a request need not be.
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string event(const std::string& data) {
  return "data: " + data + "\n\n";
}

json object_of(const CompletionHeader& header) {
  return {{"id", header.id}, {"object", "text_completion"}, {"created", header.created}, {"model", header.model}};
}

json choice_of(const CompletionText& choice) {
  return {{"index", choice.index},
          {"text", choice.text},
          {"logprobs", nullptr},
          {"finish_reason", choice.finish ? json(to_string(*choice.finish)) : json(nullptr)}};
}

json usage_of(const CompletionUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", 0}}}};
}

const char* error_type(int status) {
  switch (status) {
    case 400:
      return "BadRequestError";
    case 404:
      return "NotFoundError";
    case 405:
      return "MethodNotAllowedError";
    case 408:
      return "RequestTimeoutError";
    case 413:
      return "RequestEntityTooLargeError";
    case 431:
      return "RequestHeaderFieldsTooLargeError";
    case 503:
      return "ServiceUnavailableError";
    default:
      return "InternalServerError";
  }
}

}  // namespace

const char* to_string(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

std::string error_body(int status, const std::string& message, const std::string& param) {
  return dump({{"error",
                {{"message", message},
                 {"type", error_type(status)},
                 {"param", param.empty() ? json(nullptr) : json(param)},
                 {"code", status}}}});
}

std::string completion_body(const CompletionHeader& header, const std::vector<CompletionText>& choices,
                            const CompletionUsage& usage) {
  json body = object_of(header);
  body["choices"] = json::array();
  for (const CompletionText& choice : choices) body["choices"].push_back(choice_of(choice));
  body["usage"] = usage_of(usage);
  return dump(body);
}

std::string completion_chunk(const CompletionHeader& header, const CompletionText& choice, bool null_usage) {
  json body = object_of(header);
  body["choices"] = json::array({choice_of(choice)});
  if (null_usage) body["usage"] = nullptr;
  return event(dump(body));
}

std::string usage_chunk(const CompletionHeader& header, const CompletionUsage& usage) {
  json body = object_of(header);
  body["choices"] = json::array();
  body["usage"] = usage_of(usage);
  return event(dump(body));
}

std::string error_chunk(int status, const std::string& message) {
  return event(error_body(status, message));
}

std::string done_chunk() {
  return event("[DONE]");
}

std::string models_body(const std::string& model, std::int64_t created, int max_positions) {
  return dump({{"object", "list"},
               {"data", json::array({{{"id", model},
                                      {"object", "model"},
                                      {"created", created},
                                      {"owned_by", "foe"},
                                      {"root", model},
                                      {"parent", nullptr},
                                      {"max_model_len", max_positions}}})}});
}

}  // namespace foe
