// A request that is refused: an HTTP status, and OpenAI's error body.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace foe {

class ApiError : public Error {
 public:
  // `param` names the field of the request, or is empty.
  ApiError(int status, std::string param, const std::string& message)
      : Error(message), status_(status), param_(std::move(param)) {}
  int status() const { return status_; }
  const std::string& param() const { return param_; }

 private:
  int status_;
  std::string param_;
};

// refuse("top_p", "expected ..., got {}", x) is a 400 for that field.
template <typename... Args>
[[noreturn]] void refuse(const std::string& param, fmt::format_string<Args...> format, Args&&... args) {
  throw ApiError(400, param, param + ": " + fmt::format(format, std::forward<Args>(args)...));
}

// What a reply and the log have at most of a message: it may quote the request, and then its templates and schemas.
inline constexpr std::size_t kMaxMessageBytes = 512;

// {"error": {"message", "type", "param", "code"}}: what every response with a status of 400 or more has as its body.
// The message is cut to kMaxMessageBytes.
std::string error_body(int status, const std::string& message, const std::string& param = "");

// Replies with it.
class HttpReply;
void send_error(HttpReply& reply, int status, const std::string& message, const std::string& param = "");

}  // namespace foe
