#include "core/model_config.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/change_config.h"
#include "core/configs.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string error_of(const ModelConfig& config) {
  try {
    validate(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

struct Refusal {
  const char* name;
  std::function<void(ModelConfig&)> spoil;
  const char* key;
  const char* expected;
  const char* actual;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

class ValidateRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(ValidateRefuses, NamingKeyExpectedAndActual) {
  ModelConfig config = paper_config();  // every rule has something to divide
  ASSERT_NO_THROW(validate(config));
  GetParam().spoil(config);
  EXPECT_THAT(error_of(config),
              AllOf(HasSubstr(GetParam().key), HasSubstr(GetParam().expected), HasSubstr(GetParam().actual)));
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
using C = ModelConfig;

INSTANTIATE_TEST_SUITE_P(
    Branches, ValidateRefuses,
    testing::Values(
        Refusal{"hidden_zero", [](C& c) { c.hidden_size = 0; }, "hidden_size:", "from 1 to 65536", "got 0"},
        Refusal{"hidden_huge", [](C& c) { c.hidden_size = 65537; }, "hidden_size:", "from 1 to 65536", "got 65537"},
        Refusal{"layers", [](C& c) { c.layers.clear(); }, "num_hidden_layers:", "from 1 to 1024", "got 0"},
        Refusal{"vocab", [](C& c) { c.vocab_size = 0; }, "vocab_size:", "from 1 to 16777216", "got 0"},
        Refusal{"positions", [](C& c) { c.max_position_embeddings = 0; }, "max_position_embeddings:", "from 1",
                "got 0"},
        Refusal{"eps_zero", [](C& c) { c.rms_norm_eps = 0; }, "rms_norm_eps:", "above 0", "got 0"},
        Refusal{"eps_nan", [](C& c) { c.rms_norm_eps = std::nan(""); }, "rms_norm_eps:", "finite", "got nan"},
        Refusal{"eps_inf", [](C& c) { c.rms_norm_eps = kInfinity; }, "rms_norm_eps:", "finite", "got inf"},
        Refusal{"heads", [](C& c) { set(c, &AttentionConfig::query_heads, 0); },
                "num_attention_heads:", "from 1 to 1024", "got 0"},
        Refusal{"kv_heads", [](C& c) { set(c, &AttentionConfig::kv_heads, 0); },
                "num_key_value_heads:", "from 1 to 1024", "got 0"},
        Refusal{"grouped_query", [](C& c) { set(c, &AttentionConfig::kv_heads, 3); },
                "num_attention_heads:", "a multiple of num_key_value_heads = 3", "got 8"},
        Refusal{"head_dim", [](C& c) { set(c, &AttentionConfig::key_width, 2048); }, "head_dim:", "from 1 to 1024",
                "got 2048"},
        Refusal{"head_dim_odd", [](C& c) { set(c, &AttentionConfig::key_width, 97); }, "head_dim:", "an even number",
                "got 97"},
        Refusal{"value_width", [](C& c) { set(c, &AttentionConfig::value_width, 1025); },
                "v_head_dim:", "from 1 to 1024", "got 1025"},
        Refusal{"value_width_negative", [](C& c) { set(c, &AttentionConfig::value_width, -1); },
                "v_head_dim:", "from 1", "got -1"},
        Refusal{"window", [](C& c) { set(c, &AttentionConfig::window, -1); }, "sliding_window:", "from 0", "got -1"},
        Refusal{"scale", [](C& c) { set(c, &AttentionConfig::scale, -0.1); }, "attention_scale:", "at least 0",
                "got -0.1"},
        Refusal{"scale_nan", [](C& c) { set(c, &AttentionConfig::scale, std::nan("")); }, "attention_scale:", "finite",
                "got nan"},
        Refusal{"softcap", [](C& c) { set(c, &AttentionConfig::softcap, kInfinity); },
                "attn_logit_softcapping:", "finite", "got inf"},
        Refusal{"rotary_share", [](C& c) { set(c, &AttentionConfig::rotary_share, 1.5); },
                "partial_rotary_factor:", "from 0 to 1", "got 1.5"},
        Refusal{"rotary_share_nan", [](C& c) { set(c, &AttentionConfig::rotary_share, std::nan("")); },
                "partial_rotary_factor:", "from 0 to 1", "got nan"},
        Refusal{"rotary_share_odd", [](C& c) { set(c, &AttentionConfig::rotary_share, 0.1); },
                "partial_rotary_factor:", "an even width", "got 0.1 of head_dim = 96, which is 9"},
        Refusal{"theta_zero", [](C& c) { set(c, &AttentionConfig::rope_theta, 0); }, "rope_theta:", "above 0", "got 0"},
        Refusal{"theta_inf", [](C& c) { set(c, &AttentionConfig::rope_theta, kInfinity); }, "rope_theta:", "finite",
                "got inf"},
        Refusal{"factor", [](C& c) { set(c, &AttentionConfig::rope_factor, 0.5); },
                "rope_scaling.factor:", "at least 1", "got 0.5"},
        Refusal{"factor_nan", [](C& c) { set(c, &AttentionConfig::rope_factor, std::nan("")); },
                "rope_scaling.factor:", "finite", "got nan"},
        Refusal{"factor_inf", [](C& c) { set(c, &AttentionConfig::rope_factor, kInfinity); },
                "rope_scaling.factor:", "finite", "got inf"},
        Refusal{"experts_negative", [](C& c) { set(c, &ExpertsConfig::count, -8); }, "num_experts:", "from 1 to 16384",
                "got -8"},
        Refusal{"expert_width", [](C& c) { set(c, &ExpertsConfig::width, 0); }, "moe_intermediate_size:", "from 1",
                "got 0"},
        Refusal{"dense_width",
                [](C& c) {
                  c.expert_groups = 1;
                  for_each_experts(c, [](ExpertsConfig& e) { e = dense_experts(0); });
                },
                "intermediate_size:", "from 1 to 262144", "got 0"},
        Refusal{"groups_zero", [](C& c) { c.expert_groups = 0; }, "expert_groups:", "from 1", "got 0"},
        Refusal{"dense_top_k",
                [](C& c) {
                  c.expert_groups = 1;
                  make_dense(c);
                  set(c, &ExpertsConfig::per_token, 8);
                },
                "num_experts_per_tok", "from 1 to 1", "got 8"},
        Refusal{"dense_groups", [](C& c) { make_dense(c); }, "expert_groups:", "1 in a dense model", "got 8"},
        Refusal{"top_k_zero", [](C& c) { set(c, &ExpertsConfig::per_token, 0); },
                "num_experts_per_tok:", "from 1 to 64", "got 0"},
        Refusal{"top_k", [](C& c) { set(c, &ExpertsConfig::per_token, 65); }, "num_experts_per_tok:", "from 1 to 64",
                "got 65"},
        Refusal{"groups_kv", [](C& c) { set(c, &AttentionConfig::kv_heads, 4); },
                "expert_groups:", "a divisor of num_key_value_heads = 4", "got 8"},
        Refusal{"groups_experts", [](C& c) { set(c, &ExpertsConfig::count, 60); },
                "expert_groups:", "a divisor of num_experts = 60", "got 8"},
        Refusal{"groups_top_k", [](C& c) { set(c, &ExpertsConfig::per_token, 4); },
                "expert_groups:", "a divisor of num_experts_per_tok = 4", "got 8"},
        Refusal{"eos",
                [](C& c) {
                  c.eos_token_ids = {2, -3};
                },
                "eos_token_id:", "from 0", "got -3"},
        Refusal{"bos", [](C& c) { c.bos_token_id = -1; }, "bos_token_id:", "from 0", "got -1"}),
    [](const testing::TestParamInfo<Refusal>& test) { return test.param.name; });

// What a configuration can describe and nothing computes. A key of one layer has the layer before it.
TEST(ModelConfig, RefusesWhatIsNotComputed) {
  struct Case {
    std::function<void(ModelConfig&)> change;
    const char* message;
  };
  const auto block = [](ModelConfig& c) -> BlockConfig& { return c.layers[2].blocks[0]; };
  const Case cases[] = {
      {[](C& c) { set(c, &AttentionConfig::kind, AttentionKind::kLatent); }, "attention_kind: expected grouped"},
      {[](C& c) { c.attention(2).kind = AttentionKind::kRecurrent; },
       "layers[2].blocks[0].attention.attention_kind: expected grouped"},
      {[](C& c) { c.attention(2).key_width = 64; },
       "layers[2].blocks[0].attention.num_attention_heads: expected 8 query and 8 KV heads of widths 96 and 96 as in "
       "the first layer, got 8, 8, 64 and 64"},
      {[](C& c) { c.attention(2).value_width = 64; },
       "layers[2].blocks[0].attention.num_attention_heads: expected 8 query and 8 KV heads of widths 96 and 96 as in "
       "the first layer, got 8, 8, 96 and 64"},
      {[](C& c) { c.attention(2).qk_norm = QkNorm::kHead; }, "layers[2].blocks[0].attention.qk_norm: expected full"},
      {[&](C& c) { block(c).norm = BlockNorm::kAfter; }, "layers[2].blocks[0].norm: expected before"},
      {[&](C& c) { block(c).norm = BlockNorm::kShared; }, "layers[2].blocks[0].norm: expected before, after or both"},
      {[&](C& c) { block(c).residual_factor = 0; }, "layers[2].blocks[0].residual_factor: expected a number"},
      {[&](C& c) { block(c).residual_factor = 2, c.attention(2).output_bias = true; },
       "layers[2].blocks[0].residual_factor: expected 1 for attention with an output bias in a federated model"},
      {[](C& c) { c.layers[0].blocks[0].parallel = true; },
       "layers[0].blocks[0].parallel: expected false in the first block of the first layer"},
      {[&](C& c) { block(c).parallel = true, c.residual = Residual::kShared; },
       "layers[2].blocks[0].parallel: expected false for attention without a federation"},
      {[](C& c) { c.layers[2].blocks[1].parallel = true; },
       "layers[2].blocks[1].parallel: expected false as in the first layer of a federated model, got true"},
      {[&](C& c) {
         for (LayerConfig& layer : c.layers) layer.blocks[1].parallel = true;
         block(c).parallel = true;
       },
       "layers[2].blocks[1].parallel: expected false behind a parallel block of a federated model, got true"},
      {[&](C& c) { block(c).parallel = true, c.group_sync_every = 2; },
       "layers[2].blocks[0].parallel: expected false with group_sync_every = 2, got true"},
      {[](C& c) { c.residual = Residual::kShared, c.group_sync_every = 2; },
       "group_sync_every: expected 1 without residual = \"federated\", got 2"},
      {[](C& c) { c.group_sync_every = 0; }, "group_sync_every: expected an integer from 1 to"},
      {[](C& c) { c.experts(2).router->across_groups = true, c.experts(2).zero = 8; },
       "layers[2].blocks[1].experts.router.across_groups: expected false with constant, copy or zero experts"},
      {[](C& c) { c.layers[2].blocks[1].norm = BlockNorm::kShared; },
       "layers[2].blocks[1].norm: expected before, after or both in a block that is not parallel"},
      {[](C& c) { c.experts(2) = dense_experts(192); },
       "layers[2].blocks[1].experts.num_experts: expected at least 1 in every layer of a federated model"},
      {[](C& c) { std::swap(c.layers[2].blocks[0], c.layers[2].blocks[1]); },
       "layers[2].blocks: expected attention and then experts"},
      {[](C& c) { c.layers[2].blocks.pop_back(); }, "layers[2].blocks: expected attention and then experts"},
      {[](C& c) { c.embedding_factor = 0; }, "embedding_factor: expected a number from 1e-06"},
      {[](C& c) { c.logit_factor = kInfinity; }, "logit_factor: expected a number from 1e-06"},
      {[](C& c) { c.logit_softcap = -30; }, "logit_softcap: expected a number from 1e-06"},
      {[](C& c) { c.logit_softcap = std::nan(""); }, "logit_softcap: expected a number from 1e-06"},
  };
  for (const Case& refused : cases) {
    ModelConfig config = paper_config();
    refused.change(config);
    EXPECT_THAT(error_of(config), testing::StartsWith(refused.message));
  }
}

TEST(ModelConfig, AcceptsEveryKindOfModel) {
  ModelConfig config = paper_config();
  EXPECT_EQ(error_of(config), "no error");
  config.residual = Residual::kShared;  // grouped routing alone
  EXPECT_EQ(error_of(config), "no error");
  config.expert_groups = 1;
  EXPECT_EQ(error_of(config), "no error");
  config.residual = Residual::kFederated;  // one group: the same as shared
  EXPECT_EQ(error_of(config), "no error");
  EXPECT_FALSE(config.federated());
  make_dense(config);  // dense
  EXPECT_EQ(error_of(config), "no error");
}

// Layers may differ in these.
TEST(ModelConfig, AcceptsEveryKindOfAttention) {
  ModelConfig config = paper_config();
  set(config, &AttentionConfig::value_width, 64);
  AttentionConfig& a = config.attention(2);
  a.window = 512;
  a.rotary_share = 0.3;  // 28.8 of 96
  a.interleaved = true;
  a.rope_theta = 1e4;
  a.rope_factor = 1;
  a.scale = 0.1;
  a.softcap = 50;
  a.qkv_bias = a.output_bias = a.sinks = true;
  config.attention(3).rotary_share = 0;
  EXPECT_EQ(error_of(config), "no error");
}

TEST(ModelConfig, AcceptsLayersThatDiffer) {
  ModelConfig config = paper_config();
  config.layers[2].blocks[1].norm = BlockNorm::kAfter;  // of each group's own experts
  config.layers[3].blocks[0].residual_factor = 0.5;
  config.experts(4) = {.count = 32, .per_token = 16, .width = 100, .router = RouterConfig{}};
  config.experts(5).activation = Activation::kRelu2;
  EXPECT_EQ(error_of(config), "no error");
  config.residual = Residual::kShared;
  config.experts(0) = dense_experts(192);
  config.layers[6].blocks[0].norm = BlockNorm::kBoth;
  config.layers[7].blocks[1].parallel = true;
  config.layers[7].blocks[1].norm = BlockNorm::kShared;
  config.embedding_factor = 27.7;
  config.logit_factor = 1.0 / 16;
  config.logit_softcap = 30;
  EXPECT_EQ(error_of(config), "no error");
  EXPECT_FALSE(config.dense());
  config.layers[7].blocks[0].norm = BlockNorm::kAfter;
  EXPECT_THAT(error_of(config), HasSubstr("layers[7].blocks[1].norm: expected before, after or both behind attention"));
}

TEST(ModelConfig, CountsTheSumsOfAFederation) {
  ModelConfig config = paper_config();
  EXPECT_EQ(config.group_sums(), 17);
  for (int l = 1; l < 16; ++l) config.layers[l].blocks[0].parallel = true;
  EXPECT_EQ(config.group_sums(), 17);
  for (LayerConfig& layer : config.layers) layer.blocks[0].parallel = false, layer.blocks[1].parallel = true;
  EXPECT_EQ(config.group_sums(), 16);
  config = paper_config();
  config.group_sync_every = 2;
  EXPECT_EQ(config.group_sums(), 9);
  config.expert_groups = 1;
  EXPECT_EQ(config.group_sums(), 0);
}

TEST(ModelConfig, RefusesNetworksThatAreNotComputed) {
  const std::pair<void (*)(ExpertsConfig&), const char*> cases[] = {
      {[](auto& e) { e.gate.alpha = 0; }, "swiglu_alpha: expected a number from 1e-06 to 1000000, got 0"},
      {[](auto& e) { e.gate.alpha = 2, e.activation = Activation::kRelu2; },
       "swiglu_alpha: expected 1 with hidden_act = relu2, got 2"},
      {[](auto& e) { e.gate.limit = -1; }, "swiglu_limit: expected a number from 1e-06 to 1000000, got -1"},
      {[](auto& e) { e.gate.up_offset = 1e9; }, "up_offset: expected a number from 1e-06 to 1000000, got 1000000000"},
      {[](auto& e) { e.bias = true, e.shared = 8; }, "mlp_bias: expected false with shared experts"},
      {[](auto& e) { e.bias = true, e.storage = ExpertStorage::kSlices; }, "mlp_bias: expected false with shared"},
  };
  for (const auto& [change, message] : cases) {
    ModelConfig config = paper_config();
    for_each_experts(config, change);
    EXPECT_THAT(error_of(config), HasSubstr(message));
  }
  ModelConfig config = paper_config();
  config.experts(3).bias = true;
  config.experts(4).gate = {1.702, 7, 1};
  EXPECT_EQ(error_of(config), "no error");
  config.experts(5).of_layer = 3;
  EXPECT_THAT(error_of(config), HasSubstr("the same storage and mlp_bias, got 3"));
  config.experts(5).bias = true;
  EXPECT_EQ(error_of(config), "no error");
}

TEST(ModelConfig, NamesItsChoicesAsConfigJsonDoes) {
  EXPECT_STREQ(to_string(Residual::kShared), "shared");
  EXPECT_STREQ(to_string(Residual::kFederated), "federated");
  EXPECT_STREQ(to_string(GroupSync::kMean), "mean");
  EXPECT_STREQ(to_string(GroupSync::kSum), "sum");
  EXPECT_STREQ(to_string(QkNorm::kNone), "none");
  EXPECT_STREQ(to_string(QkNorm::kHead), "head");
  EXPECT_STREQ(to_string(QkNorm::kFull), "full");
}

}  // namespace
}  // namespace foe
