// Refuses a request, with an HTTP status and the error body of OpenAI's API or of Anthropic's.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace foe {

class ApiError : public Error {
 public:
  // `param` is the name of the field of the request, or empty.
  ApiError(int status, std::string param, const std::string& message)
      : Error(message), status_(status), param_(std::move(param)) {}
  int status() const { return status_; }
  const std::string& param() const { return param_; }

 private:
  int status_;
  std::string param_;
};

// refuse("top_p", "expected ..., got {}", x) throws an ApiError 400 for that field.
template <typename... Args>
[[noreturn]] void refuse(const std::string& param, fmt::format_string<Args...> format, Args&&... args) {
  throw ApiError(400, param, param + ": " + fmt::format(format, std::forward<Args>(args)...));
}

// Messages are cut to so many bytes in replies and in the log, because they may quote a request, which may be long.
inline constexpr std::size_t kMaxMessageBytes = 512;

// Whose API an error is written for.
enum class ErrorForm {
  kOpenAi,     // {"error": {"message", "type", "param", "code"}}
  kAnthropic,  // {"type": "error", "error": {"type", "message"}}, where the message names the field
};

// Returns the form that clients of the path expect: Anthropic's for /v1/messages and paths below it.
ErrorForm error_form(std::string_view path);

// Returns the body of every reply with a status of 400 or more. The message is cut to kMaxMessageBytes.
std::string error_body(int status, const std::string& message, const std::string& param = "",
                       ErrorForm form = ErrorForm::kOpenAi);

// Replies with error_body().
class HttpReply;
void send_error(HttpReply& reply, int status, const std::string& message, const std::string& param = "",
                ErrorForm form = ErrorForm::kOpenAi);

}  // namespace foe
