// What families with routers of their own read from config.json, beside what families_test.cc holds all families to.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text_file.h"
#include "config_samples.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

json file_of(const std::string& name) {
  return json::parse(read_text_file(FOE_SOURCE_DIR "/tests/weights/published/" + name + ".json", 1 << 20));
}

std::string refusal(const std::string& name, const json& change) {
  return error_of([&] { parse(with(file_of(name), change)); });
}

TEST(RoutedFamilies, SharedExpertsAreSlicesWhereTheyCanBe) {
  const ExpertsConfig qwen = parse(file_of("Qwen1.5-MoE-A2.7B")).experts(0);
  EXPECT_EQ(qwen.shared, 4);
  EXPECT_EQ(qwen.shared_width, 0);
  EXPECT_TRUE(qwen.shared_gate);
  const ExpertsConfig odd =
      parse(with(file_of("Qwen1.5-MoE-A2.7B"), {{"shared_expert_intermediate_size", 5000}})).experts(0);
  EXPECT_EQ(odd.shared, 1);
  EXPECT_EQ(odd.shared_width, 5000);
}

TEST(RoutedFamilies, LayersThatPredictFurtherTokensAreNotNeeded) {
  EXPECT_THAT(parse(file_of("GLM-4.5-Air")).unused_tensors, ElementsAre("model.layers.46."));
  EXPECT_THAT(parse(file_of("MiniMax-M2")).unused_tensors,
              ElementsAre("model.layers.62.", "model.layers.63.", "model.layers.64."));
  EXPECT_THAT(parse(file_of("ERNIE-4.5-21B-A3B")).unused_tensors, ElementsAre("model.mtp_"));
}

TEST(RoutedFamilies, Rotation) {
  EXPECT_EQ(parse(file_of("GLM-4.5-Air")).heads().rotary_width(), 64);
  EXPECT_EQ(parse(file_of("MiniMax-M2")).heads().rotary_width(), 64);
  EXPECT_TRUE(parse(file_of("ERNIE-4.5-0.3B")).heads().interleaved);
  // theta alpha^(d / (d - 2)) with alpha 1000 and d 128
  EXPECT_NEAR(parse(file_of("Hunyuan-A13B")).heads().rope_theta, 11158839.925, 1e-3);
}

TEST(RoutedFamilies, DenseLayers) {
  const ModelConfig glm = parse(file_of("GLM-4.6"));
  for (const int l : {0, 2}) EXPECT_EQ(glm.experts(l).width, 12288);
  EXPECT_FALSE(glm.experts(3).dense());
  const ModelConfig ernie =
      parse(with(file_of("ERNIE-4.5-21B-A3B"), {{"moe_layer_interval", 2}, {"moe_layer_end_index", 5}}));
  for (const int l : {0, 2, 4, 6, 7, 27}) EXPECT_TRUE(ernie.experts(l).dense()) << l;
  for (const int l : {1, 3, 5}) EXPECT_FALSE(ernie.experts(l).dense()) << l;
}

TEST(RoutedFamilies, WhatIsNotComputedIsRefused) {
  EXPECT_THAT(refusal("ERNIE-4.5-21B-A3B", {{"use_bias", true}}), HasSubstr("use_bias: expected false"));
  EXPECT_THAT(refusal("Hunyuan-A13B", {{"use_cla", true}}), HasSubstr("use_cla: expected false, got true"));
  EXPECT_THAT(refusal("Hunyuan-A13B", {{"moe_topk", {8, 8}}}), HasSubstr("moe_topk: expected an integer, or a list"));
  EXPECT_THAT(refusal("Hunyuan-A13B", {{"num_experts_per_tok", 1}}),
              HasSubstr("num_experts_per_tok: expected 8, got 1"));
  EXPECT_THAT(refusal("Hunyuan-A13B", {{"num_shared_expert", 2}}), HasSubstr("num_shared_expert: expected 1"));
  EXPECT_THAT(refusal("MiniMax-M2", {{"attn_type_list", {1, 0}}}), HasSubstr("attn_type_list: expected a list of 1"));
  EXPECT_THAT(refusal("MiniMax-M2", {{"use_routing_bias", false}}), HasSubstr("use_routing_bias: expected true"));
  EXPECT_THAT(refusal("GLM-4.6", {{"scoring_func", "softmax"}}), HasSubstr("scoring_func: expected \"sigmoid\""));
  EXPECT_THAT(refusal("GLM-4.6", {{"num_nextn_predict_layers", -1}}), HasSubstr("num_nextn_predict_layers: expected"));
  EXPECT_THAT(refusal("granite-3.1-3b-a800m", {{"attention_multiplier", 0}}),
              HasSubstr("attention_multiplier: expected a number above 0, got 0"));
  EXPECT_THAT(refusal("Solar-Open-100B", {{"first_k_dense_replace", 1}}),
              HasSubstr("first_k_dense_replace: expected 0 in a model of type solar_open"));
}

// Families whose mathematics is not there yet.
TEST(RoutedFamilies, OthersAreRefusedByName) {
  for (const char* type : {"phimoe", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "gemma4_text", "llama4_text",
                           "lfm2_moe", "qwen3_next"})
    EXPECT_THAT(refusal("GLM-4.6", {{"model_type", type}}), HasSubstr(fmt::format("got \"{}\"", type)));
}

}  // namespace
}  // namespace foe
