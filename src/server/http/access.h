// What is looked at before a request's body: who asks, from which page, and under which id.
#pragma once

#include <string>
#include <vector>

#include "server/http/server.h"

namespace foe {

struct AccessOptions {
  std::vector<std::string> api_keys;      // any of them opens /v1; none: it is open to all
  std::vector<std::string> cors_origins;  // pages of these origins may ask; "*": of all
};

// Throws Error for a key that is empty, as from a variable that is not set, or that no request can have.
void check_options(const AccessOptions& options);

// The client's X-Request-Id if that is at most 128 letters, digits, '-', '_' and '.', else a new one.
std::string request_id(const HttpRequest& request);

// The header lines for a reply to this request: its id, and what lets a page of a listed origin read it.
std::string access_headers(const HttpRequest& request, const std::string& id, const AccessOptions& options);

// Whether this only asks what a page may ask: a browser's preflight, to be answered by the headers alone.
bool is_preflight(const HttpRequest& request, const AccessOptions& options);

// Throws ApiError 401 unless the path is open to all or the request has one of the keys.
void check_key(const HttpRequest& request, const AccessOptions& options);

}  // namespace foe
