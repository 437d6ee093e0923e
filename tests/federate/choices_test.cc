#include "federate/choices.h"

#include <gmock/gmock.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "trace/record.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kModel = "0123456789abcdef";

ModelConfig model_of_record() {
  ModelConfig config = small_config();
  set_layers(config, 2);
  set(config, &ExpertsConfig::count, 6);
  set(config, &ExpertsConfig::per_token, 3);
  return config;
}

// A record whose tokens have three experts wherever they ran.
Record full_record() {
  Record record;
  record.experts = {0, 2, 5, -2, -2, -2, 1, 3, 4, 0, 1, 2, 3, 4, 5, 0, 2, 4, 0, 1, 2, 3, 4, 5, 2, 3, 4, 0, 1, 5};
  return record;
}

std::string error_of_choices(const Record& record, const ModelConfig& config, const std::string& identity = kModel) {
  const std::string bytes = record.bytes();
  return error_of([&] { choices_of(RouteFile(std::as_bytes(std::span(bytes)), "r"), config, identity); });
}

TEST(ChoicesOf, AreThoseOfAllTokensThatRan) {
  const std::string bytes = full_record().bytes();
  const auto all = choices_of(RouteFile(std::as_bytes(std::span(bytes)), "r"), model_of_record(), kModel);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].tokens(), 5);
  EXPECT_EQ(all[1].tokens(), 4);
  EXPECT_THAT(all[0].experts_of(0), ElementsAre(0, 2, 5));
  EXPECT_THAT(all[1].experts_of(0), ElementsAre(2, 1, 0));  // by their weights 0.1, 0.2, 0.3
}

TEST(ChoicesOf, RefusesWhatIsNotTheModels) {
  const ModelConfig config = model_of_record();
  EXPECT_EQ(error_of_choices(full_record(), config), "no error");
  EXPECT_THAT(
      error_of_choices(full_record(), config, "fedcba9876543210"),
      HasSubstr("expected a record of this model, whose digest is fedcba9876543210, got one of 0123456789abcdef"));
  ModelConfig other = config;
  set(other, &ExpertsConfig::count, 8);
  EXPECT_THAT(error_of_choices(full_record(), other),
              HasSubstr("expected 8 experts in layer 0, 3 of each token, got 6"));
  other = config;
  set_layers(other, 3);
  EXPECT_THAT(error_of_choices(full_record(), other), HasSubstr("expected a record of 3 layers, got 2"));
  EXPECT_THAT(error_of_choices(Record(), config), HasSubstr("got fewer in sequence 3, position 1, layer 0"));
  Record none = full_record();
  for (int token = 0; token < 5; ++token)
    for (int i = 3; i < 6; ++i) none.experts[6 * token + i] = kNotRun;
  EXPECT_THAT(error_of_choices(none, config), HasSubstr("expected at least one token in layer 1, got none"));
}

}  // namespace
}  // namespace foe
