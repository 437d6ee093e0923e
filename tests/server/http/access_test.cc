#include "server/http/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/http/api_error.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::Not;

HttpRequest request_of(const std::string& method, const std::string& path,
                       std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {method, path, "", std::move(headers)};
}

bool opens(const std::string& path, const std::string& authorization, const AccessOptions& options) {
  try {
    check_key(request_of("POST", path, {{"authorization", authorization}}), options);
    return true;
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 401);
    return false;
  }
}

TEST(RequestId, IsTheClientsIfItIsOne) {
  const auto id_of = [](const std::string& given) {
    return request_id(request_of("GET", "/", {{"x-request-id", given}}));
  };
  EXPECT_EQ(id_of("Abc-1_2.3"), "Abc-1_2.3");
  for (const std::string bad : {"", "a b", "a\r\nb", "<script>", "\xc3\xa9"}) EXPECT_NE(id_of(bad), bad);
  EXPECT_NE(id_of(std::string(129, 'a')), std::string(129, 'a'));
  EXPECT_NE(id_of(""), id_of(""));
}

TEST(Keys, OpenOnlyV1) {
  const AccessOptions options{.api_keys = {"secret", "other"}, .cors_origins = {}};
  EXPECT_TRUE(opens("/v1/completions", "Bearer secret", options));
  EXPECT_TRUE(opens("/v1/models", "Bearer other", options));
  for (const std::string scheme : {"bearer ", "BEARER ", "Bearer  ", "beArer   "})
    EXPECT_TRUE(opens("/v1/completions", scheme + "secret", options)) << scheme;
  for (const std::string wrong :
       {"", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Bearer secretsecret", "Bearersecret",
        "Basic secret", "Bearer\tsecret", "Bearerx secret"})
    EXPECT_FALSE(opens("/v1/completions", wrong, options)) << wrong;
  const auto opens_with_header = [&](const std::string& key, const std::string& authorization) {
    try {
      check_key(request_of("POST", "/v1/messages", {{"authorization", authorization}, {"x-api-key", key}}), options);
      return true;
    } catch (const ApiError&) {
      return false;
    }
  };
  EXPECT_TRUE(opens_with_header("other", ""));
  EXPECT_TRUE(opens_with_header("secret", "Bearer wrong"));
  EXPECT_TRUE(opens_with_header("wrong", "Bearer secret"));
  for (const std::string wrong : {"", "secre", "Bearer secret"}) EXPECT_FALSE(opens_with_header(wrong, "")) << wrong;
  EXPECT_TRUE(opens("/health", "", options));
  EXPECT_TRUE(opens("/metrics", "", options));
  EXPECT_TRUE(opens("/v1/completions", "", {}));
}

TEST(Keys, AreNeverEmpty) {
  for (const std::string bad : {"", " ", "a b", "a\n", "\x7f"})
    EXPECT_THAT(
        [&] {
          check_options({.api_keys = {"good", bad}, .cors_origins = {}});
        },
        testing::ThrowsMessage<Error>(HasSubstr("--api-key, FOE_API_KEY: expected a key")));
  check_options({.api_keys = {"good", "\xc3\xa9!"}, .cors_origins = {}});
  check_options({});
}

TEST(Cors, RepeatsNoLongOrigin) {
  const AccessOptions all{.api_keys = {}, .cors_origins = {"*"}};
  const auto lines = [&](const std::string& origin) {
    return access_headers(request_of("POST", "/v1/completions", {{"origin", origin}}), "1", all);
  };
  EXPECT_THAT(lines("https://" + std::string(500, 'a')), HasSubstr("Access-Control-Allow-Origin: https://aaa"));
  EXPECT_EQ(lines("https://" + std::string(600, 'a')), "X-Request-Id: 1\r\n");
}

TEST(Cors, IsForListedOriginsOnly) {
  const AccessOptions options{.api_keys = {}, .cors_origins = {"https://a.example"}};
  const auto lines = [&](const std::string& origin) {
    return access_headers(request_of("POST", "/v1/completions", {{"origin", origin}}), "1", options);
  };
  EXPECT_THAT(lines("https://a.example"), HasSubstr("Access-Control-Allow-Origin: https://a.example\r\n"));
  EXPECT_THAT(lines("https://b.example"), Not(HasSubstr("Access-Control")));
  EXPECT_EQ(lines(""), "X-Request-Id: 1\r\n");
  const HttpRequest preflight = request_of(
      "OPTIONS", "/v1/completions", {{"origin", "https://a.example"}, {"access-control-request-method", "POST"}});
  EXPECT_TRUE(is_preflight(preflight, options));
  EXPECT_FALSE(is_preflight(preflight, {}));
  EXPECT_FALSE(is_preflight(request_of("OPTIONS", "/v1/completions"), options));
  EXPECT_THAT(access_headers(preflight, "1", options), HasSubstr("Access-Control-Allow-Headers: Authorization"));
  // OpenAI's client in a page sends headers of its own.
  const auto allowed = [&](const std::string& asked) {
    HttpRequest request = preflight;
    request.headers.emplace_back("access-control-request-headers", asked);
    const std::string all = access_headers(request, "1", options), name = "Access-Control-Allow-Headers: ";
    const std::size_t begin = all.find(name) + name.size();
    return all.substr(begin, all.find('\r', begin) - begin);
  };
  EXPECT_EQ(allowed("authorization,content-type,x-stainless-os"), "authorization,content-type,x-stainless-os");
  for (const std::string& bad : {std::string("a\tb"), std::string("x:y"), "x-" + std::string(3000, 'a')})
    EXPECT_EQ(allowed(bad), "Authorization, Content-Type, X-Request-Id") << bad;
}

}  // namespace
}  // namespace foe
