// Writing config.json, whose result is what was written.
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_samples.h"
#include "core/change_config.h"

namespace foe {
namespace {

using testing::HasSubstr;

ModelConfig round_trip(const ModelConfig& config) {
  ModelConfig back = parse_model_config(model_config_json(config));
  back.model_type = config.model_type;
  return back;
}

TEST(ConfigJson, WritesWhatItReads) {
  for (const json& root : {olmoe(), mixtral(), qwen3_moe(), foe_model(), with(common(), {{"model_type", "qwen3"}})}) {
    const ModelConfig config = parse(root);
    EXPECT_EQ(round_trip(config), config) << root;
  }
  ModelConfig config = parse(foe_model());
  set(config, &AttentionConfig::rope_factor, 16.0);
  set(config, &AttentionConfig::rope_theta, 1.0 / 3.0);  // every digit counts
  config.rms_norm_eps = 1e-300;
  config.tie_word_embeddings = true;
  set(config, &RouterConfig::norm, RouterNorm::kSelected);
  config.eos_token_ids = {1, 2};
  config.bos_token_id = 0;
  set(config, &AttentionConfig::window, 17);
  set(config, &AttentionConfig::qkv_bias, true);
  set(config, &AttentionConfig::output_bias, true);
  EXPECT_EQ(round_trip(config), config);
  for (const Residual residual : {Residual::kShared, Residual::kFederated}) {
    for (const GroupSync sync : {GroupSync::kMean, GroupSync::kSum}) {
      for (const int groups : {1, 2}) {
        config.residual = residual;
        config.group_sync = sync;
        config.expert_groups = groups;
        EXPECT_EQ(round_trip(config), config);
      }
    }
  }
}

TEST(ConfigJson, WritesOlmoeOnlyWhereTransformersComputesTheSame) {
  const auto type = [](const ModelConfig& config) { return json::parse(model_config_json(config))["model_type"]; };
  ModelConfig config = parse(olmoe());
  EXPECT_EQ(type(config), "olmoe");
  const json written = json::parse(model_config_json(config));
  EXPECT_EQ(written["architectures"], json::array({"OlmoeForCausalLM"}));
  EXPECT_EQ(written["intermediate_size"], 12);
  EXPECT_EQ(written["eos_token_id"], 7);
  EXPECT_TRUE(written.contains("bos_token_id") && written["bos_token_id"].is_null());
  EXPECT_FALSE(written.contains("residual"));
  set(config, &AttentionConfig::key_width, 8);  // OLMoE has no head_dim of its own
  EXPECT_EQ(type(config), "foe");
  set(config, &AttentionConfig::key_width, 4);
  config.expert_groups = 2;
  EXPECT_EQ(type(config), "foe");
  config.expert_groups = 1;
  set(config, &AttentionConfig::window, 9);
  EXPECT_EQ(type(config), "foe");
  set(config, &AttentionConfig::window, 0);
  set(config, &AttentionConfig::qk_norm, QkNorm::kHead);
  EXPECT_EQ(type(config), "foe");
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  make_dense(config);
  EXPECT_EQ(type(config), "foe");
}

TEST(ConfigJson, DoesNotWriteWhatItWouldNotRead) {
  ModelConfig config = parse(foe_model());
  set(config, &AttentionConfig::key_width, 3);
  EXPECT_THAT(error_of([&] { model_config_json(config); }), HasSubstr("head_dim: expected an even number"));
}

TEST(ConfigJson, WritesAttentionOfOneLayerAndOfAll) {
  const std::function<void(AttentionConfig&)> changes[] = {
      [](AttentionConfig& a) { a.window = 8; },     [](AttentionConfig& a) { a.scale = 1; },
      [](AttentionConfig& a) { a.softcap = 8; },    [](AttentionConfig& a) { a.rotary_share = 0.5; },
      [](AttentionConfig& a) { a.rope_theta = 8; }, [](AttentionConfig& a) { a.sinks = true; },
      [](AttentionConfig& a) { a.qkv_bias = true; }};
  for (const auto& change : changes) {
    ModelConfig config = parse(foe_model());
    change(config.attention(1));
    EXPECT_EQ(round_trip(config), config);
    for_each_attention(config, change);
    EXPECT_EQ(round_trip(config), config);
  }
}

}  // namespace
}  // namespace foe
