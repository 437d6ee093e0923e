// Reads the head of an HTTP request: where its body ends, what it asks for, and whether the client waits to be asked
// for the body (RFC 9110 and 9112).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <boost/beast/http/message.hpp>

#include "server/http/server.h"

namespace foe {

struct HttpFault {
  int status = 400;
  std::string message;
};

using HttpHead = boost::beast::http::header<true>;

// Returns a fault if the head's Transfer-Encoding leaves open where the body ends, or names a coding that is not
// supported. Then what follows must not be read as a request, because another reader of the same bytes (a proxy) may
// take it for the body (request smuggling).
std::optional<HttpFault> check_framing(const HttpHead& head);

// Returns the path of a target in origin form ("/path?query") or absolute form ("http://host/path?query"), without the
// query.
std::string path_of(std::string_view target);

// Whether the client expects "100 Continue". HTTP/1.0 does not have it.
bool expects_continue(const HttpHead& head);

// Returns the request without its body.
HttpRequest plain_head(const HttpHead& head);

}  // namespace foe
