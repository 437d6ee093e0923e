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

TEST(ErrorBody, MayHaveAnthropicsForm) {
  const auto body = [](int status, const std::string& message, const std::string& param) {
    return json::parse(error_body(status, message, param, ErrorForm::kAnthropic));
  };
  const auto expected = [](const std::string& type, const std::string& message) {
    return json{{"type", "error"}, {"error", {{"type", type}, {"message", message}}}};
  };
  EXPECT_EQ(body(400, "top_k: no", "top_k"), expected("invalid_request_error", "top_k: no"));
  EXPECT_EQ(body(400, "no such template", "messages"), expected("invalid_request_error", "messages: no such template"));
  const std::pair<int, std::string> types[] = {
      {401, "authentication_error"}, {404, "not_found_error"}, {405, "invalid_request_error"},
      {413, "request_too_large"},    {500, "api_error"},       {503, "overloaded_error"},
      {504, "timeout_error"}};
  for (const auto& [status, type] : types) EXPECT_EQ(body(status, "x", ""), expected(type, "x"));
  for (const std::string path : {"/v1/messages", "/v1/messages/count_tokens"})
    EXPECT_EQ(error_form(path), ErrorForm::kAnthropic) << path;
  for (const std::string path : {"/v1/messagesx", "/v1/chat/completions", ""})
    EXPECT_EQ(error_form(path), ErrorForm::kOpenAi) << path;
}

}  // namespace
}  // namespace foe
