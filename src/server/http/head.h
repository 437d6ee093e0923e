// What the head of an HTTP request says about the rest of it: where its body ends, what it asks for, and whether the
// client waits to be asked for the body (RFC 9110 and 9112).
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

// A head whose Transfer-Encoding leaves it open where the body ends, or names a coding that is not read here. What
// follows it must not be taken for a request: another reader of the same bytes may take it for the body.
std::optional<HttpFault> check_framing(const HttpHead& head);

// The path of a target in origin form ("/path?query") or absolute form ("http://host/path?query"), without the query.
std::string path_of(std::string_view target);

// Whether "100 Continue" is expected. HTTP/1.0 does not know that.
bool expects_continue(const HttpHead& head);

// All but the body.
HttpRequest plain_head(const HttpHead& head);

}  // namespace foe
