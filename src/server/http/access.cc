#include "server/http/access.h"

#include <algorithm>
#include <cctype>
#include <random>
#include <string_view>

#include <fmt/core.h>

#include "base/strict_json.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxId = 128;
constexpr std::size_t kMaxOrigin = 512;
constexpr std::size_t kMaxAskedHeaders = 2048;

bool is_id(const std::string& text) {
  return !text.empty() && text.size() <= kMaxId && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

// Takes the same time wherever the two differ, so that the time tells nothing about the key.
bool equal_in_constant_time(const std::string& key, const std::string& given) {
  unsigned difference = key.size() != given.size();
  for (std::size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i] ^ key[i % std::max<std::size_t>(key.size(), 1)]);
  return difference == 0;
}

// The reply repeats the origin, so a long one is never listed.
bool is_listed(const std::string& origin, const AccessOptions& options) {
  return !origin.empty() && origin.size() <= kMaxOrigin &&
         std::any_of(options.cors_origins.begin(), options.cors_origins.end(),
                     [&](const std::string& listed) { return listed == "*" || listed == origin; });
}

// Returns the key of "Bearer KEY", or an empty string. The scheme may be in any case and may be followed by several
// spaces (RFC 9110, 11.4).
std::string bearer_key(const std::string& header) {
  constexpr std::string_view kScheme = "bearer";
  const auto same = [](unsigned char a, char b) { return std::tolower(a) == b; };
  if (header.size() <= kScheme.size() || header[kScheme.size()] != ' ' ||
      !std::equal(kScheme.begin(), kScheme.end(), header.begin(), [&](char b, char a) { return same(a, b); }))
    return "";
  const std::size_t key = header.find_first_not_of(' ', kScheme.size());
  return key == header.npos ? "" : header.substr(key);
}

// Returns the headers that a page asks to send, as OpenAI's client sends some of its own. Anything but names of headers
// and commas between them, or a long list, is not repeated.
std::string allowed_headers(const std::string& asked) {
  const bool names = std::all_of(asked.begin(), asked.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_., ").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (asked.empty() || asked.size() > kMaxAskedHeaders || !names) return "Authorization, Content-Type, X-Request-Id";
  return asked;
}

}  // namespace

void check_options(const AccessOptions& options) {
  for (const std::string& key : options.api_keys) {
    if (key.empty()) fail("--api-key, FOE_API_KEY: expected a key, got an empty one: leave it out to let everyone in");
    if (std::any_of(key.begin(), key.end(), [](unsigned char c) { return c <= ' ' || c == 127; }))
      fail(
          "--api-key, FOE_API_KEY: expected a key without spaces and control characters, got one that no request "
          "could have");
  }
}

bool is_for(const HttpRequest& request, std::string_view path, std::string_view method, HttpReply& reply) {
  const bool below = path.size() > 1 && path.ends_with('/') && request.path.starts_with(path);
  if (request.path != path && !below) return false;
  if ((request.method == "HEAD" ? "GET" : request.method) == method) return true;
  reply.add_headers(fmt::format("Allow: {}\r\n", method));
  throw ApiError(405, "", fmt::format("expected {} {}, got {}", method, path, shorten(request.method)));
}

std::string request_id(const HttpRequest& request) {
  if (const std::string& given = request.header("x-request-id"); is_id(given)) return given;
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

std::string access_headers(const HttpRequest& request, const std::string& id, const AccessOptions& options) {
  std::string lines = "X-Request-Id: " + id + "\r\n";
  const std::string& origin = request.header("origin");
  if (!is_listed(origin, options)) return lines;
  lines += "Access-Control-Allow-Origin: " + origin + "\r\nVary: Origin\r\n";
  lines += "Access-Control-Expose-Headers: X-Request-Id, Retry-After\r\n";
  if (is_preflight(request, options))
    lines +=
        "Access-Control-Allow-Methods: GET, POST\r\n"
        "Access-Control-Allow-Headers: " +
        allowed_headers(request.header("access-control-request-headers")) + "\r\nAccess-Control-Max-Age: 600\r\n";
  return lines;
}

bool is_preflight(const HttpRequest& request, const AccessOptions& options) {
  return request.method == "OPTIONS" && is_listed(request.header("origin"), options) &&
         !request.header("access-control-request-method").empty();
}

void check_key(const HttpRequest& request, const AccessOptions& options) {
  if (options.api_keys.empty() || !request.path.starts_with("/v1")) return;
  bool known = false;
  for (const std::string& given : {bearer_key(request.header("authorization")), request.header("x-api-key")})
    for (const std::string& key : options.api_keys) known = equal_in_constant_time(key, given) || known;
  if (!known) throw ApiError(401, "", "expected a valid API key as Authorization: Bearer KEY, or as X-Api-Key: KEY");
}

}  // namespace foe
