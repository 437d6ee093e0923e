// The field foe_route of a request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/configs.h"
#include "server/api/generation_request.h"
#include "server/http/api_error.h"
#include "tokenizer/gpt2_tokenizer.h"
#include "trace/record.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

ServedModel plain_model() {
  return {.name = "m", .vocab_size = 561, .max_positions = 64, .max_choices = 3, .tokenizer = gpt2_tokenizer()};
}

std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i)
      bits |= (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0u) << (16 - 8 * i);
    for (std::size_t i = 0; i < 4; ++i) text += at + i > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * i) & 63];
  }
  return text;
}

// Two layers of six experts, three of a token, as the record of tests/trace/record.h.
ServedModel routed_model() {
  ModelConfig config = countable_config();
  for_each_experts(config, [](ExpertsConfig& e) {
    e.count = 6;
    e.per_token = 3;
  });
  ServedModel m = plain_model();
  m.routed_by_requests = config;
  return m;
}

std::string refusal_of_route(const std::string& body, const ServedModel& m = routed_model()) {
  try {
    parse_completion_request(body, m);
  } catch (const ApiError& error) {
    return fmt::format("{} [{}] {}", error.status(), error.param(), error.what());
  }
  return "accepted";
}

Record record_of_one() {
  Record record;
  record.sequences = {3, 3, 3, 3, 3};
  record.positions = {0, 1, 2, 3, 4};
  return record;
}

TEST(RouteField, IsTheRouteOfEveryChoice) {
  const std::string body =
      fmt::format(R"({{"prompt": [5, 6, 7], "n": 2, "foe_route": "{}"}})", base64(record_of_one().bytes()));
  const GenerationRequest request = parse_completion_request(body, routed_model());
  ASSERT_TRUE(request.route);
  EXPECT_THAT(request.route->tokens, ElementsAre(5, 6, 7, 5, 9));
  EXPECT_EQ(request.route->model, "0123456789abcdef");
  EXPECT_EQ(request.route->route.experts_TLK, Record().experts);
  EXPECT_EQ(request.route->route.weights_TLK, Record().weights);
  for (const Request& r : engine_requests(request, {})) EXPECT_EQ(r.route, request.route);
  EXPECT_EQ(refusal_of_route(body, plain_model()),
            "400 [foe_route] foe_route: this server routes by its model alone; whoever runs it may allow this with "
            "--allow-routes");
  EXPECT_FALSE(parse_completion_request(R"({"prompt": "x", "foe_route": null})", plain_model()).route);
}

TEST(RouteField, RefusesWhatTheModelOrThePromptIsNotOf) {
  const auto with = [](const std::string& prompt, const std::string& route) {
    return refusal_of_route(fmt::format(R"({{"prompt": {}, "foe_route": {}}})", prompt, route));
  };
  const auto file = [&](const Record& record) { return with("[5]", '"' + base64(record.bytes()) + '"'); };
  const std::string good = '"' + base64(record_of_one().bytes()) + '"';
  EXPECT_EQ(with("[5]", good), "accepted");
  EXPECT_EQ(with("[5]", "7"), "400 [foe_route] foe_route: expected a string, got 7");
  EXPECT_EQ(with("[5]", "\"AAA\""), "400 [foe_route] foe_route: expected base64, got \"AAA\"");
  EXPECT_EQ(with("[5]", "\"AA?=\""), "400 [foe_route] foe_route: expected base64, got \"AA?=\"");
  EXPECT_THAT(with("[5]", "\"AAAA\""), StartsWith("400 [foe_route] foe_route: "));
  EXPECT_EQ(with("[[5], [5]]", good), "400 [foe_route] foe_route: expected one prompt, which it is of, got 2");
  EXPECT_EQ(with("[5, 9]", good),
            "400 [foe_route] route: position 1: expected a record of the prompt's token 9, got one of token 6");
  ServedModel small = routed_model();
  small.max_positions = 4;
  EXPECT_EQ(refusal_of_route(fmt::format(R"({{"prompt": [5], "max_tokens": 1, "foe_route": {}}})", good), small),
            "400 [foe_route] foe_route: expected at most 4 tokens, the model's context, got 5");
  EXPECT_EQ(file(Record()), "400 [foe_route] foe_route: expected the record of one sequence, got 2: 3, ..., 8");
  Record record = record_of_one();
  record.experts[2] = 9;
  EXPECT_EQ(file(record), "400 [foe_route] foe_route: position 0, layer 0: expected experts in [0, 6), got 9");
  record.metadata["experts"] = "10,10";
  EXPECT_EQ(file(record), "400 [foe_route] route: position 0, layer 0: expected experts in [0, 6), got 9");
}

}  // namespace
}  // namespace foe
