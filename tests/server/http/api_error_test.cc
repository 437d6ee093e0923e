#include "server/http/api_error.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace foe {
namespace {

using nlohmann::json;

TEST(ErrorBody, NamesTypeParameterAndCode) {
  const json expected{
      {"error", {{"message", "top_k: no"}, {"type", "BadRequestError"}, {"param", "top_k"}, {"code", 400}}}};
  EXPECT_EQ(json::parse(error_body(400, "top_k: no", "top_k")), expected);
  const std::pair<int, std::string> types[] = {
      {401, "AuthenticationError"},        {404, "NotFoundError"},
      {405, "MethodNotAllowedError"},      {408, "RequestTimeoutError"},
      {413, "RequestEntityTooLargeError"}, {431, "RequestHeaderFieldsTooLargeError"},
      {500, "InternalServerError"},        {503, "ServiceUnavailableError"},
      {504, "GatewayTimeoutError"}};
  for (const auto& [status, type] : types) EXPECT_EQ(json::parse(error_body(status, ""))["error"]["type"], type);
  // A request must not come back in what refuses it.
  EXPECT_EQ(json::parse(error_body(400, std::string(20000, 'x')))["error"]["message"],
            std::string(kMaxMessageBytes, 'x') + "...");
  // A message may quote bytes that are no UTF-8.
  EXPECT_EQ(json::parse(error_body(400, "\xff"))["error"]["message"], "\xef\xbf\xbd");
}

}  // namespace
}  // namespace foe
