// What is checked before a request's body is read: its path, its API key, its origin (CORS) and its id.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/http/server.h"

namespace foe {

struct AccessOptions {
  std::vector<std::string> api_keys;      // a request to /v1 needs one of them; empty: /v1 is open to all
  std::vector<std::string> cors_origins;  // pages of these origins may send requests; "*": all pages
};

// Throws Error for a key that is empty, as if from an environment variable that is not set, or that no request can
// send.
void check_options(const AccessOptions& options);

// Whether the request is for this path and method, where GET stands for HEAD, too. A path with a slash at its end, but
// for the root, stands for all below it. Throws ApiError 405, and names the method in a header, if only that is
// another.
bool is_for(const HttpRequest& request, std::string_view path, std::string_view method, HttpReply& reply);

// Returns the client's X-Request-Id, if it is at most 128 letters, digits, '-', '_' and '.'; otherwise a new id.
std::string request_id(const HttpRequest& request);

// Returns header lines for the reply to this request: its id, and what lets a page of a listed origin read the reply.
std::string access_headers(const HttpRequest& request, const std::string& id, const AccessOptions& options);

// Whether this is a browser's preflight, which asks what a page may send, and is answered by access_headers() alone.
bool is_preflight(const HttpRequest& request, const AccessOptions& options);

// Throws ApiError 401 if the path requires a key and the request has none of them.
void check_key(const HttpRequest& request, const AccessOptions& options);

}  // namespace foe
