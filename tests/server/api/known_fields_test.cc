#include "server/api/known_fields.h"

#include <fstream>
#include <iterator>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/http/api_error.h"

namespace foe {
namespace {

using nlohmann::ordered_json;

std::vector<KnownField> all_of(Api api) {
  std::vector<KnownField> all(fields_of_both().begin(), fields_of_both().end());
  all.insert(all.end(), fields_of(api).begin(), fields_of(api).end());
  return all;
}

// What is said of a body with one field; empty if it is accepted.
std::string refusal_of_field(Api api, std::string_view name, const ordered_json& value) {
  ordered_json body = ordered_json::object();
  body[std::string(name)] = value;
  try {
    check_fields(body, api);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.param(), name);
    return error.what();
  }
  return "";
}

TEST(KnownFields, AreRefusedUnlessFoeDoesWhatTheySayOrTheyAskForNothing) {
  for (const Api api : {Api::kCompletions, Api::kChat}) {
    std::set<std::string_view> names;
    for (const KnownField& field : all_of(api)) {
      EXPECT_TRUE(names.insert(field.name).second) << field.name << " is there twice";
      EXPECT_EQ(refusal_of_field(api, field.name, nullptr), "");
      const std::string said = refusal_of_field(api, field.name, "something");
      if (field.use != FieldUse::kRefused) {
        EXPECT_EQ(said, "");
        continue;
      }
      EXPECT_THAT(said, testing::StartsWith(std::string(field.name) + ": \"something\" is not supported"));
      for (const ordered_json& neutral :
           field.neutral.empty() ? ordered_json::array() : ordered_json::parse(field.neutral))
        EXPECT_EQ(refusal_of_field(api, field.name, neutral), "") << neutral;
    }
  }
}

TEST(KnownFields, OthersAreRefusedByName) {
  EXPECT_EQ(refusal_of_field(Api::kChat, "temprature", 1),
            "temprature: expected a field of this endpoint, got an unknown one");
  EXPECT_EQ(refusal_of_field(Api::kChat, "prompt", "x"),
            "prompt: expected a field of this endpoint, got one of the other");
  EXPECT_EQ(refusal_of_field(Api::kCompletions, "messages", ordered_json::array()),
            "messages: expected a field of this endpoint, got one of the other");
  EXPECT_EQ(refusal_of_field(Api::kChat, "temprature", nullptr), "");
}

TEST(KnownFields, AreAllOnThePage) {
  std::ifstream file(FOE_SOURCE_DIR "/docs/api.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  for (const Api api : {Api::kCompletions, Api::kChat})
    for (const KnownField& field : all_of(api))
      EXPECT_NE(page.find(fmt::format("`{}`", field.name)), page.npos) << "docs/api.md lacks " << field.name;
}

}  // namespace
}  // namespace foe
