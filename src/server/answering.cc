#include "server/answering.h"

#include <spdlog/spdlog.h>

#include "base/strict_json.h"
#include "server/http/api_error.h"

namespace foe {

void answering(const HttpRequest& request, HttpReply& reply, const std::function<void()>& action) {
  const auto refuse = [&](int status, const std::string& message, const std::string& param) {
    // Path and message may contain bytes that the client chose, so they are escaped and cut.
    spdlog::info("{} {} {:?} is refused with {}: {:?}", request.id, shorten(request.method), shorten(request.path),
                 status, shorten(message, kMaxMessageBytes));
    send_error(reply, status, message, param, error_form(request.path));
  };
  try {
    action();
  } catch (const ApiError& error) {
    refuse(error.status(), error.what(), error.param());
  } catch (const std::exception& error) {
    refuse(500, error.what(), "");
  }
}

}  // namespace foe
