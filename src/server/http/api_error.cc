#include "server/http/api_error.h"

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/http/server.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

const char* error_type(int status) {
  switch (status) {
    case 400:
      return "BadRequestError";
    case 401:
      return "AuthenticationError";
    case 404:
      return "NotFoundError";
    case 405:
      return "MethodNotAllowedError";
    case 408:
      return "RequestTimeoutError";
    case 413:
      return "RequestEntityTooLargeError";
    case 422:
      return "UnprocessableEntityError";
    case 431:
      return "RequestHeaderFieldsTooLargeError";
    case 501:
      return "NotImplementedError";
    case 503:
      return "ServiceUnavailableError";
    case 504:
      return "GatewayTimeoutError";
    default:
      return "InternalServerError";
  }
}

const char* anthropic_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

json openai_error(int status, const std::string& message, const std::string& param) {
  return {{"error",
           {{"message", shorten(message, kMaxMessageBytes)},
            {"type", error_type(status)},
            {"param", param.empty() ? json(nullptr) : json(param)},
            {"code", status}}}};
}

json anthropic_error(int status, const std::string& message, const std::string& param) {
  const bool names_field = param.empty() || message.starts_with(param + ":");
  const std::string text = names_field ? message : param + ": " + message;
  return {{"type", "error"},
          {"error", {{"type", anthropic_type(status)}, {"message", shorten(text, kMaxMessageBytes)}}}};
}

}  // namespace

ErrorForm error_form(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages", kBelow = "/v1/messages/";
  return path == kMessages || path.starts_with(kBelow) ? ErrorForm::kAnthropic : ErrorForm::kOpenAi;
}

std::string error_body(int status, const std::string& message, const std::string& param, ErrorForm form) {
  const json body =
      form == ErrorForm::kAnthropic ? anthropic_error(status, message, param) : openai_error(status, message, param);
  return body.dump(-1, ' ', false, json::error_handler_t::replace);  // a message may quote bytes that are not UTF-8
}

void send_error(HttpReply& reply, int status, const std::string& message, const std::string& param, ErrorForm form) {
  std::string headers;
  if (status == 503) headers = "Retry-After: 1\r\n";
  if (status == 401) headers = "WWW-Authenticate: Bearer\r\n";
  reply.send({.status = status, .body = error_body(status, message, param, form), .headers = std::move(headers)});
}

}  // namespace foe
