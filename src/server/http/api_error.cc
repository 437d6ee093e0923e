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

}  // namespace

std::string error_body(int status, const std::string& message, const std::string& param) {
  const json body{{"error",
                   {{"message", shorten(message, kMaxMessageBytes)},
                    {"type", error_type(status)},
                    {"param", param.empty() ? json(nullptr) : json(param)},
                    {"code", status}}}};
  return body.dump(-1, ' ', false, json::error_handler_t::replace);  // a message may quote bytes that are not UTF-8
}

void send_error(HttpReply& reply, int status, const std::string& message, const std::string& param) {
  std::string headers;
  if (status == 503) headers = "Retry-After: 1\r\n";
  if (status == 401) headers = "WWW-Authenticate: Bearer\r\n";
  reply.send({.status = status, .body = error_body(status, message, param), .headers = std::move(headers)});
}

}  // namespace foe
