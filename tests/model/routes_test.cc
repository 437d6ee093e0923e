// What the model can run tokens by, and what it cannot.
#include "model/routes.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"

namespace foe {
namespace {

using testing::ElementsAre;

// The refusal of one token that has these entries in the second layer, and none in the others.
std::string refusal(const ModelConfig& config, std::vector<std::int32_t> experts, std::vector<float> weights = {}) {
  const RouteForm form = record_form(config, {.routes = true});
  Route route{form.layers, form.entries, std::vector<std::int32_t>(form.layers * form.entries, kNoExpert),
              std::vector<float>(form.layers * form.entries, 0.5f)};
  std::copy(experts.begin(), experts.end(), route.experts_TLK.begin() + form.entries);
  std::copy(weights.begin(), weights.end(), route.weights_TLK.begin() + form.entries);
  const std::string message = error_of([&] { check_route(route, config); }), start = "route: position 0, layer 1: ";
  return message.starts_with(start) ? message.substr(start.size()) : message;
}

TEST(CheckRoute, TakesWhatTheRouterCanSelect) {
  const ModelConfig config = small_config();
  EXPECT_EQ(refusal(config, {}), "no error");
  EXPECT_EQ(refusal(config, {0, 1, 2, 15}), "no error");
  EXPECT_EQ(refusal(config, {15}), "no error");
  EXPECT_EQ(refusal(config, {-2, -2, -2, -2}), "no error");
  EXPECT_EQ(refusal(config, {3, 4}, {0, std::numeric_limits<float>::max()}), "no error");
}

// Other layers have more entries.
TEST(CheckRoute, ADenseLayerHasItsOneExpert) {
  ModelConfig config = small_config();
  config.experts(1) = dense_experts(24);
  EXPECT_EQ(refusal(config, {0, -1, -1, -1}, {1}), "no error");
  EXPECT_EQ(refusal(config, {-2, -2, -2, -2}), "no error");
  const char* message = "expected expert 0 with weight 1, or -2, in a layer without a router";
  EXPECT_EQ(refusal(config, {-1, -1, -1, -1}), message);
  EXPECT_EQ(refusal(config, {0, -1, -1, -1}, {0.5f}), message);
  EXPECT_EQ(refusal(config, {1, -1, -1, -1}, {1}), message);
}

TEST(CheckRoute, RefusesOtherExpertsAndWeights) {
  const ModelConfig config = small_config();
  EXPECT_EQ(refusal(config, {0, 16}), "expected experts in [0, 16), got 16");
  EXPECT_EQ(refusal(config, {-3}), "expected experts in [0, 16), got -3");
  EXPECT_EQ(refusal(config, {2, 2}), "expected ascending experts, each once, got 2 after 2");
  EXPECT_EQ(refusal(config, {3, 2}), "expected ascending experts, each once, got 2 after 3");
  EXPECT_EQ(refusal(config, {1, -1, 2}), "expected no expert behind the last one");
  EXPECT_EQ(refusal(config, {-2, -2, -2, 3}), "expected -2 in place of all experts, or of none");
  EXPECT_EQ(refusal(config, {3, -2}), "expected experts in [0, 16), got -2");
  EXPECT_EQ(refusal(config, {1}, {-0.25f}), "expected a weight that is finite and not negative, got -0.25");
  EXPECT_EQ(refusal(config, {1, 2}, {1, std::numeric_limits<float>::quiet_NaN()}),
            "expected a weight that is finite and not negative, got nan");
  EXPECT_EQ(refusal(config, {1}, {std::numeric_limits<float>::infinity()}),
            "expected a weight that is finite and not negative, got inf");
}

// There is memory for as many rows, and sums have as many terms, as the router can select.
TEST(CheckRoute, RefusesMoreThanTheRouterSelects) {
  const ModelConfig two = small_federated(2);  // experts 0 to 7, and 8 to 15
  EXPECT_EQ(refusal(two, {0, 1, 8, 9}), "no error");
  EXPECT_EQ(refusal(two, {0, 1, 2, 9}), "expected at most 2 routed and shared experts of group 0, got 3");
  EXPECT_EQ(refusal(two, {0, 8, 9, 15}), "expected at most 2 routed and shared experts of group 1, got 3");
  ModelConfig affine = small_config();
  for_each_experts(affine, [](ExpertsConfig& e) {
    e.count = 2;
    e.zero = 14;
  });
  EXPECT_EQ(refusal(affine, {0, 1, 2, 15}), "no error");
  ModelConfig few = affine;
  for_each_experts(few, [](ExpertsConfig& e) {
    e.count = 14;
    e.zero = 2;
    e.shared = 1;
  });
  EXPECT_EQ(refusal(few, {0, 1, 2, 3, 14}), "no error");
  EXPECT_EQ(refusal(few, {0, 1, 2, 15, 16}), "no error");
  EXPECT_EQ(refusal(few, {0, 1, 2, 3, 4}), "no error");  // five, as with the shared one
}

TEST(CheckRoute, RefusesOtherModels) {
  const ModelConfig config = small_config();
  const auto of = [&](int layers, int entries) {
    const Route route{layers, entries, std::vector<std::int32_t>(layers * entries, kNoExpert),
                      std::vector<float>(layers * entries)};
    return error_of([&] { check_route(route, config); });
  };
  EXPECT_EQ(of(3, 4), "no error");
  EXPECT_EQ(of(2, 4), "route: expected the model's 3 layers of 4 experts, got 2 layers of 4");
  EXPECT_EQ(of(3, 5), "route: expected the model's 3 layers of 4 experts, got 3 layers of 5");
  ModelConfig dense = config;
  make_dense(dense);
  EXPECT_EQ(error_of([&] {
              check_route(Route{3, 1, {}, {}}, dense);
            }),
            "route: expected a model with a router, got a dense one");
  EXPECT_EQ(error_of([&] { record_form(dense, {.routes = true}); }),
            "a record of routes: expected a model with a router, got a dense one");
  EXPECT_EQ(record_form(dense, {}), RouteForm{});
}

TEST(RecordForm, HasRoomForEveryKindOfEntry) {
  const ModelConfig config = routing_configs()[8].config;
  ASSERT_EQ(routing_configs()[8].name, "every_kind_in_2_groups");
  // 8 selected and 4 shared; the router scores 12 and 12 affine ones.
  EXPECT_EQ(record_form(config, {true, true, false}), (RouteForm{3, 12, 24, 0}));
  EXPECT_EQ(record_form(config, {true, false, true}), (RouteForm{3, 12, 0, 48}));
  EXPECT_EQ(record_form(config, {false, true, true}), RouteForm{});
}

TEST(RouteReporters, AreTheFirstRanksWithEachToken) {
  const ModelConfig moe = small_config(), two = small_federated(2);
  EXPECT_THAT(route_reporters(make_placement(moe, Plan::kTp, 3)), ElementsAre(0));
  EXPECT_THAT(route_reporters(make_placement(moe, Plan::kEp, 3)), ElementsAre(0, 1, 2));
  EXPECT_THAT(route_reporters(make_placement(two, Plan::kFoe, 2)), ElementsAre(0));
  EXPECT_THAT(route_reporters(make_placement(two, Plan::kFoe, 5)), ElementsAre(0, 1));
  // Rank 0 is alone on its node, and idle.
  EXPECT_THAT(route_reporters(make_placement(two, Plan::kFoe, 5, {0, 1, 1, 1, 1})), ElementsAre(1, 2));
}

}  // namespace
}  // namespace foe
