#include "server/http/head.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include <boost/beast/core/string.hpp>

#include "base/strict_json.h"

namespace foe {

namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

std::string_view plain(beast::string_view text) {
  return {text.data(), text.size()};
}

bool same(std::string_view a, std::string_view b) {
  return beast::iequals({a.data(), a.size()}, {b.data(), b.size()});
}

// Returns all lines of the field Transfer-Encoding as one list.
std::string codings_of(const HttpHead& head) {
  std::string codings;
  const auto [first, last] = head.equal_range(http::field::transfer_encoding);
  for (auto line = first; line != last; ++line) {
    if (line != first) codings += ", ";
    codings += plain(line->value());
  }
  return codings;
}

}  // namespace

std::optional<HttpFault> check_framing(const HttpHead& head) {
  if (head.count(http::field::transfer_encoding) == 0) return {};
  const std::string codings = codings_of(head);
  if (head.version() < 11) return HttpFault{400, "expected no Transfer-Encoding in HTTP/1.0, got " + shorten(codings)};
  if (head.count(http::field::content_length) > 0)
    return HttpFault{400, "expected Content-Length or Transfer-Encoding, got both"};
  if (same(trimmed(codings), "chunked")) return {};
  const std::string expected = "expected Transfer-Encoding: chunked, got " + shorten(codings);
  const std::size_t comma = codings.rfind(',');
  const bool ends_in_chunked = comma != codings.npos && same(trimmed(codings.substr(comma + 1)), "chunked");
  const bool twice = ends_in_chunked && same(trimmed(codings.substr(0, comma)), "chunked");
  return HttpFault{ends_in_chunked && !twice ? 501 : 400, expected};
}

std::string path_of(std::string_view target) {
  if (const std::size_t scheme = target.find("://"); scheme != target.npos && !target.starts_with('/')) {
    const std::string_view name = target.substr(0, scheme);
    if (same(name, "http") || same(name, "https")) {
      target.remove_prefix(scheme + 3);
      target.remove_prefix(std::min(target.find_first_of("/?"), target.size()));
      if (!target.starts_with('/')) return "/";
    }
  }
  return std::string(target.substr(0, target.find('?')));
}

bool expects_continue(const HttpHead& head) {
  return head.version() >= 11 && same(trimmed(plain(head[http::field::expect])), "100-continue");
}

HttpRequest plain_head(const HttpHead& head) {
  HttpRequest request{std::string(head.method_string()), path_of(plain(head.target())), "", {}, "", nullptr};
  for (const auto& field : head) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  return request;
}

}  // namespace foe
