// How the front end answers requests that fail.
#pragma once

#include <functional>

#include "server/http/server.h"

namespace foe {

// Runs `action`. If it throws, replies with that error, in the form of the request's API, and logs it.
void answering(const HttpRequest& request, HttpReply& reply, const std::function<void()>& action);

}  // namespace foe
