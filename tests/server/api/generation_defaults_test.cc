#include "server/api/generation_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(GenerationDefaults, AreThoseOfTheFile) {
  const TempFolder folder;
  EXPECT_EQ(load_generation_defaults(folder.path(), "auto").described, "");
  folder.write("generation_config.json", R"({"eos_token_id": 1, "temperature": 0.6, "top_p": 0.95, "top_k": 20,
                                              "min_p": null, "max_new_tokens": 50, "do_sample": true})");
  const GenerationDefaults found = load_generation_defaults(folder.path(), "auto");
  EXPECT_EQ(found.sampling.temperature, 0.6f);
  EXPECT_EQ(found.sampling.top_p, 0.95f);
  EXPECT_EQ(found.sampling.top_k, 20);
  EXPECT_EQ(found.sampling.min_p, 0.0f);
  EXPECT_EQ(found.max_tokens, 50);
  EXPECT_EQ(found.described, "temperature 0.6, top_p 0.95, top_k 20, max_new_tokens 50");
  EXPECT_EQ(load_generation_defaults(folder.path(), "none").sampling.temperature, 0.0f);
  EXPECT_EQ(load_generation_defaults("elsewhere", folder.path()).sampling.top_k, 20);
  EXPECT_THROW(load_generation_defaults(folder.path(), "nowhere"), Error);
}

TEST(GenerationDefaults, SampleWhereTheFileSaysSoAlone) {
  const TempFolder folder;
  folder.write("generation_config.json", R"({"do_sample": true, "top_k": -1})");
  EXPECT_EQ(load_generation_defaults(folder.path(), "auto").sampling.temperature, 1.0f);
  folder.write("generation_config.json", R"({"do_sample": false})");
  EXPECT_EQ(load_generation_defaults(folder.path(), "auto").sampling.temperature, 0.0f);
  EXPECT_EQ(load_generation_defaults(folder.path(), "auto").described, "");
}

TEST(GenerationDefaults, MustBeWhatARequestCouldHave) {
  const TempFolder folder;
  for (const auto& [text, message] : std::vector<std::pair<const char*, const char*>>{
           {R"({"temperature": -1})", "temperature: expected"},
           {R"({"temperature": "hot"})", "temperature: expected a number, got \"hot\""},
           {R"({"top_k": 1.5})", "top_k: expected an integer of at least -1, got 1.5"},
           {R"({"max_new_tokens": 0})", "max_new_tokens: expected an integer of at least 1, got 0"},
           {"[]", "expected an object, got []"}}) {
    folder.write("generation_config.json", text);
    EXPECT_THAT([&] { load_generation_defaults(folder.path(), "auto"); },
                ThrowsMessage<Error>(testing::AllOf(HasSubstr("generation_config.json: "), HasSubstr(message))))
        << text;
  }
}

}  // namespace
}  // namespace foe
