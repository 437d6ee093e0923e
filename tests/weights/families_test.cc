#include <cmath>
#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text_file.h"
#include "config_samples.h"
#include "core/model_tensors.h"
#include "weights/families/family.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

json of_type(const char* type, const json& more = json::object()) {
  return with(with(common(), {{"model_type", type}, {"num_hidden_layers", 4}}), more);
}

std::vector<int> windows(const ModelConfig& config) {
  std::vector<int> result;
  for_each_attention(config, [&](const AttentionConfig& attention) { result.push_back(attention.window); });
  return result;
}

std::vector<BlockNorm> norms(const ModelConfig& config) {
  return {config.attention_block(1).norm, config.experts_block(1).norm};
}

// config.json as published, without weights, and the number of parameters that transformers counts.
struct Published {
  const char* name;
  std::int64_t parameters;
};
constexpr Published kPublished[] = {
    {"ERNIE-4.5-0.3B", 360748032},
    {"ERNIE-4.5-21B-A3B", 21825437888},
    {"FlexOlmo-7x7B-1T", 33270665216},
    {"GLM-4.5-Air", 106852251264},
    {"GLM-4.6", 352797829024},
    {"Hunyuan-7B", 7504568320},
    {"Hunyuan-A13B", 80393183232},
    {"Llama-3.1-8B", 8030261248},
    {"Llama-3.2-1B", 1235814400},
    {"MiniMax-M2", 228689764864},
    {"Ministral-8B-Instruct-2410", 8019808256},
    {"Mistral-7B-v0.1", 7241732096},
    {"Mistral-7B-v0.3", 7248023552},
    {"OLMo-2-1124-7B", 7298617344},
    {"Olmo-3-1025-7B", 7298011136},
    {"Phi-3-mini-128k-instruct", 3821079552},
    {"Phi-3-mini-4k-instruct", 3821079552},
    {"Qwen1.5-MoE-A2.7B", 14315784192},
    {"Qwen2.5-7B", 7615616512},
    {"Qwen3-8B", 8190735360},
    {"SmolLM3-3B", 3075098624},
    {"Solar-Open-100B", 102651799552},
    {"dots.llm1.inst", 142774381696},
    {"gemma-2-9b", 9241705984},
    {"gemma-3-1b-pt", 999885952},
    {"gemma-3-4b-text", 3880263168},
    {"gpt-oss-120b", 116829156672},
    {"gpt-oss-20b", 20914757184},
    {"granite-3.1-3b-a800m", 3298793472},
    {"granite-3.1-8b-base", 8170835968},
};

TEST(Families, ReadPublishedConfigurations) {
  const std::string folder = FOE_SOURCE_DIR "/tests/weights/published/";
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.insert(entry.path().stem());
  for (const Published& model : kPublished) {
    SCOPED_TRACE(model.name);
    EXPECT_EQ(files.erase(model.name), 1);
    std::vector<std::string> unknown;
    const ModelConfig config = parse_model_config(read_text_file(folder + model.name + ".json", 1 << 20), "", &unknown);
    EXPECT_THAT(unknown, IsEmpty());
    EXPECT_EQ(parameter_count(config), model.parameters);
    ModelConfig ours = parse_model_config(model_config_json(config));  // as it is after `foe convert`
    ours.model_type = config.model_type;
    ours.unused_tensors = config.unused_tensors;
    EXPECT_EQ(ours, config);
  }
  EXPECT_THAT(files, IsEmpty());
}

TEST(Families, Qwen2HasBiasesButForTheOutput) {
  const ModelConfig config = parse(of_type("qwen2"));
  EXPECT_TRUE(config.heads().qkv_bias);
  EXPECT_FALSE(config.heads().output_bias);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kNone);
}

TEST(Families, WindowsOfSomeLayers) {
  const json window{{"sliding_window", 8}};
  EXPECT_THAT(windows(parse(of_type("ministral", window))), ElementsAre(8, 8, 8, 8));
  const json types{{"layer_types", {"full_attention", "sliding_attention", "sliding_attention", "full_attention"}}};
  for (const char* type : {"ministral", "gemma2", "gemma3_text", "olmo3"})
    EXPECT_THAT(windows(parse(of_type(type, with(window, types)))), ElementsAre(0, 8, 8, 0)) << type;
  EXPECT_THAT(windows(parse(of_type("gemma2", window))), ElementsAre(8, 0, 8, 0));
  EXPECT_THAT(windows(parse(of_type("olmo3", window))), ElementsAre(8, 8, 8, 0));
  EXPECT_THAT(windows(parse(of_type("gemma3_text", with(window, {{"sliding_window_pattern", 2}})))),
              ElementsAre(8, 0, 8, 0));
  const json qwen = with(window, {{"use_sliding_window", true}, {"max_window_layers", 3}});
  EXPECT_THAT(windows(parse(of_type("qwen2", qwen))), ElementsAre(0, 0, 0, 8));
  EXPECT_THAT(windows(parse(of_type("qwen2", window))), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(windows(parse(of_type("smollm3", with(window, {{"use_sliding_window", true}})))),
              ElementsAre(0, 0, 0, 8));
  EXPECT_THAT(windows(parse(of_type("phi3", window))), ElementsAre(8, 8, 8, 8));
  for (const json& list : {json{"full_attention"}, json{"a", "b", "c", "d"}, json("full_attention"), json{1, 2, 3, 4}})
    EXPECT_THAT(
        error_with(of_type("gemma2", {{"layer_types", list}})),
        HasSubstr("layer_types: expected a list of \"full_attention\" and \"sliding_attention\", one for each"));
}

TEST(Families, LayerTypesWinOverUseSlidingWindowInSmolLm3) {
  const json types{{"layer_types", {"sliding_attention", "full_attention", "full_attention", "full_attention"}},
                   {"sliding_window", 8}};
  EXPECT_THAT(windows(parse(of_type("smollm3", types))), ElementsAre(8, 0, 0, 0));
  EXPECT_THAT(windows(parse(of_type("smollm3", with(types, {{"use_sliding_window", false}})))),
              ElementsAre(8, 0, 0, 0));
  EXPECT_THAT(windows(parse(of_type("smollm3", {{"sliding_window", 8}}))), ElementsAre(0, 0, 0, 0));
}

TEST(Families, BiasesOfNetworks) {
  for (const char* type : {"llama", "granite", "smollm3"}) {
    EXPECT_TRUE(parse(of_type(type, {{"mlp_bias", true}})).experts(3).bias) << type;
    EXPECT_FALSE(parse(of_type(type)).experts(3).bias) << type;
  }
  EXPECT_THAT(error_with(of_type("qwen2", {{"mlp_bias", true}})), HasSubstr("mlp_bias: expected false"));
}

TEST(Families, ATypeIsRequiredOfWhatHasAClass) {
  json root = of_type("ernie4_5", {{"architectures", {"Ernie4_5ForCausalLM"}}});
  root.erase("model_type");
  EXPECT_THAT(error_with(root), HasSubstr("model_type: expected the type of [\"Ernie4_5ForCausalLM\"], got none"));
}

TEST(Families, NormsAndFactors) {
  EXPECT_THAT(norms(parse(of_type("olmo2"))), ElementsAre(BlockNorm::kAfter, BlockNorm::kAfter));
  EXPECT_EQ(parse(of_type("olmo2")).heads().qk_norm, QkNorm::kFull);
  EXPECT_THAT(norms(parse(of_type("gemma2"))), ElementsAre(BlockNorm::kBoth, BlockNorm::kBoth));
  const ModelConfig granite = parse(of_type("granite", {{"embedding_multiplier", 12},
                                                        {"logits_scaling", 8},
                                                        {"residual_multiplier", 0.25},
                                                        {"attention_multiplier", 0.5}}));
  EXPECT_EQ(granite.embedding_factor, 12);
  EXPECT_EQ(granite.logit_factor, 0.125);
  EXPECT_EQ(granite.heads().scale, 0.5);
  for (int l = 0; l < 4; ++l) {
    EXPECT_EQ(granite.attention_block(l).residual_factor, 0.25);
    EXPECT_EQ(granite.experts_block(l).residual_factor, 0.25);
  }
  EXPECT_EQ(parse(of_type("granite")).heads().scale, 1);  // not 1 / sqrt(head_dim)
}

TEST(Families, Gemma) {
  const ModelConfig two = parse(of_type("gemma2"));
  EXPECT_EQ(two.norm_offset, 1);
  EXPECT_EQ(two.embedding_factor, 4);  // sqrt(16)
  EXPECT_TRUE(two.tie_word_embeddings);
  EXPECT_EQ(two.logit_softcap, 30);
  EXPECT_EQ(two.heads().softcap, 50);
  EXPECT_EQ(two.heads().scale, 1 / std::sqrt(256.0));
  EXPECT_EQ(two.heads().key_width, 256);
  EXPECT_EQ(two.experts(0).activation, Activation::kGeluTanh);
  const ModelConfig off =
      parse(of_type("gemma2", {{"final_logit_softcapping", nullptr}, {"attn_logit_softcapping", nullptr}}));
  EXPECT_EQ(off.logit_softcap, 0);
  EXPECT_EQ(off.heads().softcap, 0);
  EXPECT_THAT(error_with(of_type("gemma2", {{"use_bidirectional_attention", true}})),
              HasSubstr("use_bidirectional_attention: expected false"));
  const json linear = {{"rope_type", "linear"}, {"factor", 8.0}};
  for (const json& scaling :
       {json{{"rope_scaling", linear}}, json{{"rope_parameters", {{"full_attention", linear}}}}}) {
    const ModelConfig three = parse(of_type("gemma3_text", with(scaling, {{"sliding_window_pattern", 2}})));
    EXPECT_EQ(three.heads().qk_norm, QkNorm::kHead);
    EXPECT_EQ(three.logit_softcap, 0);
    EXPECT_EQ(three.attention(0).rope_theta, 10000);
    EXPECT_EQ(three.attention(0).rope_factor, 1);
    EXPECT_EQ(three.attention(1).rope_theta, 1000000);
    EXPECT_EQ(three.attention(1).rope_factor, 8);
  }
  // transformers takes no other than nested parameters here.
  EXPECT_THAT(error_with(of_type("gemma3_text", {{"rope_parameters", linear}})),
              HasSubstr("rope_parameters: expected no key but full_attention, sliding_attention"));
}

TEST(Families, LayersWithoutRope) {
  const auto shares_of = [](const json& root) {
    std::vector<double> shares;
    const ModelConfig config = parse(root);
    for_each_attention(config, [&](const AttentionConfig& attention) { shares.push_back(attention.rotary_share); });
    return shares;
  };
  EXPECT_THAT(shares_of(of_type("smollm3")), ElementsAre(1, 1, 1, 0));
  EXPECT_THAT(shares_of(of_type("smollm3", {{"no_rope_layer_interval", 2}})), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(shares_of(of_type("smollm3", {{"no_rope_layers", {0, 0, 1, 1}}})), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(error_with(of_type("smollm3", {{"no_rope_layers", {0, 1}}})), HasSubstr("a list of 4 numbers"));
  EXPECT_THAT(error_with(of_type("smollm3", {{"no_rope_layer_interval", 0}})), HasSubstr("expected at least 1, got 0"));
}

// Each family's own, where a file does not say it.
TEST(Families, Defaults) {
  const auto theta = [](const char* type) { return parse(of_type(type)).attention(3).rope_theta; };
  EXPECT_EQ(theta("llama"), 10000);
  EXPECT_EQ(theta("smollm3"), 2000000);
  EXPECT_EQ(theta("olmo3"), 500000);
  EXPECT_EQ(parse(with(mixtral(), {{"rope_theta", nullptr}})).heads().rope_theta, 1000000);
  json root = of_type("olmo2");
  root.erase("rms_norm_eps");
  EXPECT_EQ(parse(root).rms_norm_eps, 1e-5);
  root["model_type"] = "llama";
  EXPECT_EQ(parse(root).rms_norm_eps, 1e-6);
  EXPECT_FALSE(parse(root).tie_word_embeddings);
  EXPECT_TRUE(parse(of_type("smollm3")).tie_word_embeddings);
  root.erase("num_key_value_heads");
  EXPECT_EQ(parse(root).heads().kv_heads, 4);
}

TEST(Families, ReadScaledRope) {
  const auto scaling = [](const json& root) { return parse(root).heads().rope_scaling; };
  const json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"beta_fast", 16}, {"truncate", false}, {"mscale", 1.0}};
  RopeScaling expected{.type = RopeType::kYarn, .factor = 4, .original_positions = 64};
  expected.beta_fast = 16;
  expected.mscale = 1;
  expected.truncate = false;
  EXPECT_EQ(scaling(of_type("llama", {{"rope_scaling", yarn}})), expected);
  expected.original_positions = 16;  // beside the object, it wins
  EXPECT_EQ(scaling(of_type("llama", {{"rope_scaling", with(yarn, {{"original_max_position_embeddings", 8}})},
                                      {"original_max_position_embeddings", 16}})),
            expected);
  // rope_scaling wins over rope_parameters, and with it the other's theta is lost.
  const ModelConfig both = parse(
      of_type("llama", {{"rope_scaling", yarn}, {"rope_parameters", {{"rope_theta", 500.0}}}, {"rope_theta", 77}}));
  EXPECT_EQ(both.heads().rope_theta, 77);
  EXPECT_EQ(both.heads().rope_scaling.type, RopeType::kYarn);
  const ModelConfig dynamic = parse(of_type("llama", {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}));
  EXPECT_EQ(dynamic.heads().rope_scaling.original_positions, 64);
  EXPECT_EQ(dynamic.max_position_embeddings, 128);
  EXPECT_EQ(alike_positions(dynamic), 64);
  const json longrope = {{"type", "longrope"}, {"short_factor", {1, 1.5}}, {"long_factor", {2, 3}}};
  const json phi = of_type("phi3", {{"rope_scaling", longrope}, {"original_max_position_embeddings", 16}});
  EXPECT_EQ(scaling(phi).factor, 4);  // 64 / 16
  EXPECT_EQ(scaling(phi).original_positions, 16);
  EXPECT_EQ(alike_positions(parse(phi)), 16);
  EXPECT_EQ(parse(of_type("phi3", {{"partial_rotary_factor", 0.5}})).heads().rotary_share, 0.5);
  EXPECT_THAT(
      error_with(with(phi, {{"rope_scaling", with(longrope, {{"long_factor", {2}}})}})),
      HasSubstr("rope_scaling.long_factor: expected 2 numbers, half of the 4 rotating elements of a head, got 1"));
  EXPECT_THAT(error_with(of_type("llama", {{"rope_scaling", {{"type", "llama3"}, {"factor", 8}}}})),
              HasSubstr("rope_scaling.low_freq_factor: expected a value, got none"));
  EXPECT_THAT(error_with(of_type("llama", {{"rope_parameters", {{"full_attention", {{"rope_theta", 1.0}}}}}})),
              HasSubstr("rope_parameters: expected no key but"));
  const json half_of_longrope = with(longrope, {{"long_factor", {2}}, {"short_factor", {1}}});
  for (const json& root : {of_type("llama", {{"rope_scaling", yarn}}), phi,
                           with(phi, {{"rope_scaling", half_of_longrope}, {"partial_rotary_factor", 0.5}})}) {
    ModelConfig config = parse(root), read = parse_model_config(model_config_json(config));
    read.model_type = config.model_type;
    EXPECT_EQ(read, config);
  }
}

}  // namespace
}  // namespace foe
