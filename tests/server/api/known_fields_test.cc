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

// The fields of an endpoint, without the shared ones that it has an entry of its own for.
std::vector<KnownField> all_of(Api api) {
  std::vector<KnownField> all(fields_of(api).begin(), fields_of(api).end());
  for (const KnownField& field : shared_fields())
    if (find_known_field(api, field.name) == &field) all.push_back(field);
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
  for (const Api api : kAllApis) {
    std::set<std::string_view> names;
    for (const KnownField& field : all_of(api)) {
      EXPECT_TRUE(names.insert(field.name).second) << field.name << " is there twice";
      EXPECT_EQ(refusal_of_field(api, field.name, nullptr), "");
      const std::string said = refusal_of_field(api, field.name, ordered_json::array({"something"}));
      if (field.use == FieldUse::kRead) {
        EXPECT_EQ(said, "");
        continue;
      }
      EXPECT_THAT(said, testing::StartsWith(std::string(field.name) + ": "));
      EXPECT_THAT(said, testing::HasSubstr("[\"something\"]"));
      const ordered_json values = field.values.empty() ? ordered_json::array() : ordered_json::parse(field.values);
      for (const ordered_json& value : field.use == FieldUse::kRefused ? values : ordered_json::array({values}))
        EXPECT_EQ(refusal_of_field(api, field.name, value), "") << value;
    }
  }
}

TEST(KnownFields, AreRefusedWithWhatIsExpected) {
  EXPECT_EQ(refusal_of_field(Api::kEmbeddings, "user", 1), "user: expected the type string, got 1");
  EXPECT_EQ(refusal_of_field(Api::kChat, "metadata", "x"), "metadata: expected the type object, got \"x\"");
  EXPECT_EQ(refusal_of_field(Api::kEmbeddings, "embed_dtype", "float16"),
            "embed_dtype: expected \"float32\", as nothing else is supported, got \"float16\"");
  EXPECT_EQ(refusal_of_field(Api::kEmbeddings, "endianness", "big"),
            "endianness: expected \"native\" or \"little\", as nothing else is supported, got \"big\"");
  EXPECT_EQ(refusal_of_field(Api::kChat, "repeat_penalty", 2),
            "repeat_penalty: expected 1, as nothing else is supported, got 2; use repetition_penalty");
}

TEST(KnownFields, OthersAreRefusedByName) {
  EXPECT_EQ(refusal_of_field(Api::kChat, "temprature", 1),
            "temprature: expected a field of this endpoint, got an unknown one");
  EXPECT_EQ(refusal_of_field(Api::kChat, "prompt", "x"),
            "prompt: expected a field of this endpoint, got one of another");
  EXPECT_EQ(refusal_of_field(Api::kCompletions, "messages", ordered_json::array()),
            "messages: expected a field of this endpoint, got one of another");
  EXPECT_EQ(refusal_of_field(Api::kEmbeddings, "temperature", 1),
            "temperature: expected a field of this endpoint, got one of another");
  EXPECT_EQ(refusal_of_field(Api::kChat, "temprature", nullptr), "");
}

TEST(KnownFields, AreAllOnTheirPage) {
  const auto expect_on = [](const std::string& name, std::span<const KnownField> fields) {
    std::ifstream file(std::string(FOE_SOURCE_DIR "/docs/") + name);
    const std::string page{std::istreambuf_iterator<char>(file), {}};
    for (const KnownField& field : fields)
      EXPECT_NE(page.find(fmt::format("`{}`", field.name)), page.npos) << name << " lacks " << field.name;
  };
  expect_on("api.md", shared_fields());
  expect_on("api.md", fields_of(Api::kCompletions));
  expect_on("api.md", fields_of(Api::kChat));
  expect_on("messages_api.md", fields_of(Api::kMessages));
  expect_on("responses_api.md", fields_of(Api::kResponses));
  expect_on("embeddings_api.md", fields_of(Api::kEmbeddings));
}

}  // namespace
}  // namespace foe
