#include "server/api/info_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/small_model.h"
#include "server/http/api_error.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using nlohmann::json;

TEST(ModelsBody, IsAListOfOne) {
  const json body = json::parse(models_body("m", 5, 64));
  EXPECT_EQ(body["object"], "list");
  ASSERT_EQ(body["data"].size(), 1u);
  EXPECT_EQ(body["data"][0]["id"], "m");
  EXPECT_EQ(body["data"][0]["object"], "model");
  EXPECT_EQ(body["data"][0]["max_model_len"], 64);
}

TEST(ModelBody, IsOfOneModel) {
  EXPECT_EQ(json::parse(model_body("/v1/models/a%2Fb c", "a/b c", 5, 64))["id"], "a/b c");
  EXPECT_EQ(json::parse(model_body("/v1/models/a/b%", "a/b%", 5, 64))["max_model_len"], 64);
  try {
    model_body("/v1/models/other", "m", 5, 64);
    FAIL();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 404);
    EXPECT_EQ(error.param(), "model");
  }
}

TEST(TokenizerInfo, IsTheConfigWithTheTemplate) {
  const TempFolder folder;
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "tokenizer_class": "Fast"})");
  ServedModel model = small_model();
  EXPECT_EQ(json::parse(tokenizer_info_body(folder.path(), model)),
            (json{{"bos_token", "<s>"}, {"tokenizer_class", "Fast"}}));
  model.chat_template = ChatTemplate::parse("x{{ 1 }}");
  EXPECT_EQ(json::parse(tokenizer_info_body(folder.path(), model))["chat_template"], "x{{ 1 }}");
}

}  // namespace
}  // namespace foe
