#include "server/access.h"

#include <algorithm>
#include <cctype>
#include <random>

#include <fmt/core.h>

#include "server/api_error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxId = 128;

bool is_id(const std::string& text) {
  return !text.empty() && text.size() <= kMaxId && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

// Takes as long wherever the two differ, so that its time tells nothing about the key.
bool equal_in_constant_time(const std::string& key, const std::string& given) {
  unsigned difference = key.size() != given.size();
  for (std::size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i] ^ key[i % std::max<std::size_t>(key.size(), 1)]);
  return difference == 0;
}

bool is_listed(const std::string& origin, const AccessOptions& options) {
  return !origin.empty() && std::any_of(options.cors_origins.begin(), options.cors_origins.end(),
                                        [&](const std::string& listed) { return listed == "*" || listed == origin; });
}

}  // namespace

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
        "Access-Control-Allow-Headers: Authorization, Content-Type, X-Request-Id\r\n"
        "Access-Control-Max-Age: 600\r\n";
  return lines;
}

bool is_preflight(const HttpRequest& request, const AccessOptions& options) {
  return request.method == "OPTIONS" && is_listed(request.header("origin"), options) &&
         !request.header("access-control-request-method").empty();
}

void check_key(const HttpRequest& request, const AccessOptions& options) {
  if (options.api_keys.empty() || !request.path.starts_with("/v1")) return;
  const std::string& header = request.header("authorization");
  const std::string given = header.starts_with("Bearer ") ? header.substr(7) : "";
  bool known = false;
  for (const std::string& key : options.api_keys) known = equal_in_constant_time(key, given) || known;
  if (!known) throw ApiError(401, "", "expected a valid API key as Authorization: Bearer KEY");
}

}  // namespace foe
