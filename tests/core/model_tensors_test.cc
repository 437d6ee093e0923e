#include "core/model_tensors.h"

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"

namespace foe {
namespace {

using testing::ElementsAre;

// "name shape" of each of a layer's rows.
std::vector<std::string> rows_of_layer(const ModelConfig& config, int layer) {
  std::vector<std::string> rows;
  const TensorTable table(config);
  for (const ModelTensor& row : table.rows())
    if (row.layer == layer) rows.push_back(fmt::format("{} {}", row.name, fmt::join(row.shape, "x")));
  return rows;
}

TEST(ModelTensors, RowsOfAModel) {
  const ModelConfig config = countable_config();
  EXPECT_THAT(rows_of_layer(config, -1),
              ElementsAre("model.embed_tokens.weight 10x4", "model.norm.weight 4", "lm_head.weight 10x4"));
  const std::string p = "model.layers.1.";
  EXPECT_THAT(rows_of_layer(config, 1),
              ElementsAre(p + "input_layernorm.weight 4", p + "self_attn.q_proj.weight 24x4",
                          p + "self_attn.k_proj.weight 12x4", p + "self_attn.v_proj.weight 12x4",
                          p + "self_attn.o_proj.weight 4x24", p + "post_attention_layernorm.weight 4",
                          p + "mlp.gate.weight 4x4", p + "mlp.experts.{}.gate_proj.weight 5x4",
                          p + "mlp.experts.{}.up_proj.weight 5x4", p + "mlp.experts.{}.down_proj.weight 4x5"));
}

TEST(ModelTensors, RowsThatSomeModelsHave) {
  ModelConfig config = countable_config();
  set(config, &AttentionConfig::qkv_bias, true);
  set(config, &AttentionConfig::output_bias, true);
  set(config, &AttentionConfig::sinks, true);
  set(config, &AttentionConfig::value_width, 8);
  make_dense(config);
  const std::string p = "model.layers.0.";
  EXPECT_THAT(
      rows_of_layer(config, 0),
      ElementsAre(p + "input_layernorm.weight 4", p + "self_attn.q_proj.weight 24x4",
                  p + "self_attn.k_proj.weight 12x4", p + "self_attn.v_proj.weight 16x4",
                  p + "self_attn.o_proj.weight 4x32", p + "self_attn.q_proj.bias 24", p + "self_attn.k_proj.bias 12",
                  p + "self_attn.v_proj.bias 16", p + "self_attn.o_proj.bias 4", p + "self_attn.sinks 4",
                  p + "post_attention_layernorm.weight 4", p + "mlp.gate_proj.weight 5x4", p + "mlp.up_proj.weight 5x4",
                  p + "mlp.down_proj.weight 4x5"));
}

TEST(ModelTensors, RowsOfBiases) {
  ModelConfig config = countable_config();
  set(config, &ExpertsConfig::bias, true);
  set(config, &RouterConfig::bias, true);
  config.experts(1).of_layer = 0;
  const auto biases = [&](int layer) {
    std::vector<std::string> rows;
    const TensorTable table(config);
    for (const ModelTensor& row : table.rows())
      if (row.layer == layer && row.name.ends_with(".bias"))
        rows.push_back(fmt::format("{} {} x {}", row.name.substr(19), fmt::join(row.shape, "x"), row.count));
    return rows;
  };
  EXPECT_THAT(biases(0), ElementsAre("gate.bias 4 x 1", "experts.{}.gate_proj.bias 5 x 4",
                                     "experts.{}.up_proj.bias 5 x 4", "experts.{}.down_proj.bias 4 x 4"));
  EXPECT_THAT(biases(1), ElementsAre("gate.bias 4 x 1", "experts.{}.gate_proj.bias 5 x 0",
                                     "experts.{}.up_proj.bias 5 x 0", "experts.{}.down_proj.bias 4 x 0"));
  const TensorTable table(config);
  const Share share{.groups = {0, 1}, .kv_heads = {0, 2}, .vocab = {0, 10}, .layers = {2, {{1, 3}, {0, 5}}}};
  EXPECT_EQ(part_of(table.at(TensorRole::kGateBias, 0), config, share).size(), 2 * 5);
  EXPECT_EQ(part_of(table.at(TensorRole::kDownBias, 0), config, share).size(), 2 * 4);
  config.experts(0) = dense_experts(5);
  config.experts(0).bias = true;
  config.experts(1).of_layer = -1;
  EXPECT_THAT(biases(0), ElementsAre("gate_proj.bias 5 x 1", "up_proj.bias 5 x 1", "down_proj.bias 4 x 1"));
}

// OLMo 2 norms what blocks add, Gemma 2 also what they read, and where the second block of a pair is parallel it reads
// what the first does (Cohere).
TEST(ModelTensors, NormsOfBlocks) {
  const auto norms = [](BlockNorm attention, BlockNorm experts) {
    ModelConfig config = countable_config();
    config.layers[0].blocks[0].norm = attention;
    config.layers[0].blocks[1].norm = experts;
    std::vector<std::string> names;
    const TensorTable table(config);
    for (const ModelTensor& row : table.rows())
      if (row.layer == 0 && row.initial == InitialValues::kOnes)
        names.push_back(row.name.substr(std::string("model.layers.0.").size()));
    return names;
  };
  EXPECT_THAT(norms(BlockNorm::kBefore, BlockNorm::kBefore),
              ElementsAre("input_layernorm.weight", "post_attention_layernorm.weight"));
  EXPECT_THAT(norms(BlockNorm::kAfter, BlockNorm::kAfter),
              ElementsAre("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"));
  EXPECT_THAT(norms(BlockNorm::kBoth, BlockNorm::kBoth),
              ElementsAre("input_layernorm.weight", "post_attention_layernorm.weight",
                          "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"));
  EXPECT_THAT(norms(BlockNorm::kBefore, BlockNorm::kShared), ElementsAre("input_layernorm.weight"));
}

TEST(ModelTensors, ExpertsAreKnownByTheirIds) {
  ModelConfig config = small_federated(4);
  set(config, &ExpertsConfig::shared, 4);
  const TensorTable table(config);
  // Each group has four routed experts and a shared one.
  const auto name = [&](int id) {
    const ExpertMatrices m = expert_matrices(table, config, 2, id);
    return name_of(m.down, m.index);
  };
  EXPECT_EQ(name(0), "model.layers.2.mlp.experts.0.down_proj.weight");
  EXPECT_EQ(name(4), "model.layers.2.mlp.shared_experts.0.down_proj.weight");
  EXPECT_EQ(name(5), "model.layers.2.mlp.experts.4.down_proj.weight");
  EXPECT_EQ(name(19), "model.layers.2.mlp.shared_experts.3.down_proj.weight");
}

TEST(ModelTensors, PartsOfAShare) {
  ModelConfig config = small_federated(4);  // 48 wide, 8 query and 4 KV heads of 12, 16 experts of 24
  set(config, &ExpertsConfig::shared, 4);
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  const Share share{.groups = {1, 2},
                    .kv_heads = {1, 2},
                    .vocab = {30, 70},
                    .layers = std::vector<ExpertsShare>(3, {{5, 10}, {0, 16}})};
  const TensorTable table(config);
  const auto sizes = [&](TensorRole role, int layer) {
    const TensorPart part = part_of(table.at(role, layer), config, share);
    return std::vector<int>{part.rows.begin, part.rows.end, part.columns.begin, part.columns.end, part.count};
  };
  EXPECT_THAT(sizes(TensorRole::kEmbedding, -1), ElementsAre(0, 70, 0, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kHead, -1), ElementsAre(30, 70, 0, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kQProj, 0), ElementsAre(24, 48, 0, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kVProj, 0), ElementsAre(12, 24, 0, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kOProj, 0), ElementsAre(0, 48, 24, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kQNorm, 0), ElementsAre(24, 48, 0, 1, 1));
  EXPECT_THAT(sizes(TensorRole::kRouter, 0), ElementsAre(0, 16, 0, 48, 1));
  EXPECT_THAT(sizes(TensorRole::kUpProj, 0), ElementsAre(0, 16, 0, 48, 4));
  EXPECT_THAT(sizes(TensorRole::kDownProj, 0), ElementsAre(0, 48, 0, 16, 4));
  EXPECT_THAT(sizes(TensorRole::kSharedDownProj, 0), ElementsAre(0, 48, 0, 16, 1));
}

// As training has its parameters: expert by expert.
TEST(ModelTensors, AreVisitedInOrder) {
  ModelConfig config = countable_config();
  set(config, &ExpertsConfig::count, 2);
  set_layers(config, 1);
  config.tie_word_embeddings = true;
  std::vector<std::string> names;
  for_each_tensor(TensorTable(config), [&](const ModelTensor& row, int index) {
    const std::string name = name_of(row, index);
    names.push_back(name.substr(name.find("experts") == name.npos ? 0 : name.find("experts")));
  });
  const std::string p = "model.layers.0.";
  EXPECT_THAT(names,
              ElementsAre("model.embed_tokens.weight", p + "input_layernorm.weight", p + "self_attn.q_proj.weight",
                          p + "self_attn.k_proj.weight", p + "self_attn.v_proj.weight", p + "self_attn.o_proj.weight",
                          p + "post_attention_layernorm.weight", p + "mlp.gate.weight", "experts.0.gate_proj.weight",
                          "experts.0.up_proj.weight", "experts.0.down_proj.weight", "experts.1.gate_proj.weight",
                          "experts.1.up_proj.weight", "experts.1.down_proj.weight", "model.norm.weight"));
}

TEST(ModelTensors, CountsParametersOfAModelSmallEnoughToCountByHand) {
  ModelConfig config = countable_config();
  set(config, &ExpertsConfig::count, 3);
  // Per layer: q and o 4*24 each, k and v 4*12 each, two norms of 4, router 3*4, experts of 3*4*5. Then two tables of
  // 10*4 and the last norm.
  const int layer = 2 * 96 + 2 * 48 + 8 + 12;
  EXPECT_EQ(parameter_count(config), 2 * (layer + 3 * 60) + 80 + 4);
  EXPECT_EQ(active_parameter_count(config), 2 * (layer + 2 * 60) + 80 + 4);
  set(config, &AttentionConfig::qk_norm, QkNorm::kHead);
  EXPECT_EQ(parameter_count(config), 2 * (layer + 3 * 60 + 12) + 80 + 4);
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  EXPECT_EQ(parameter_count(config), 2 * (layer + 3 * 60 + 36) + 80 + 4);
  config.tie_word_embeddings = true;
  EXPECT_EQ(parameter_count(config), 2 * (layer + 3 * 60 + 36) + 40 + 4);
  make_dense(config);  // dense: one expert, no router
  EXPECT_EQ(parameter_count(config), 2 * (layer - 12 + 60 + 36) + 40 + 4);
  EXPECT_EQ(active_parameter_count(config), parameter_count(config));
}

TEST(ModelTensors, CountsParametersOfPublishedModels) {
  // The paper's models in billions to three places, and OLMoE-1B-7B, "6.9B in all, 1.3B active".
  ModelConfig config = paper_config();
  EXPECT_NEAR(static_cast<double>(parameter_count(config)) / 1e9, 1.022, 0.0005);
  config.hidden_size = 2048;
  set(config, &AttentionConfig::query_heads, 16);
  set(config, &AttentionConfig::key_width, 128);
  set(config, &ExpertsConfig::width, 1024);
  EXPECT_NEAR(static_cast<double>(parameter_count(config)) / 1e9, 6.852, 0.0005);
  set(config, &AttentionConfig::kv_heads, 16);
  EXPECT_NEAR(static_cast<double>(parameter_count(config)) / 1e9, 6.92, 0.005);
  EXPECT_NEAR(static_cast<double>(active_parameter_count(config)) / 1e9, 1.28, 0.005);
}

TEST(ModelTensors, LargestSizesDoNotOverflow) {
  ModelConfig config = paper_config();
  config.hidden_size = 1 << 16;
  set_layers(config, 1 << 10);
  for (const auto field : {&AttentionConfig::query_heads, &AttentionConfig::kv_heads, &AttentionConfig::key_width})
    set(config, field, 1 << 10);
  config.vocab_size = 1 << 24;
  set(config, &ExpertsConfig::count, 1 << 14);
  set(config, &ExpertsConfig::per_token, 1 << 14);
  set(config, &ExpertsConfig::width, 1 << 18);
  config.max_position_embeddings = 1 << 27;
  ASSERT_NO_THROW(validate(config));
  const double experts = std::ldexp(3.0, 10 + 14 + 18 + 16);
  EXPECT_GT(static_cast<double>(parameter_count(config)), experts);
  EXPECT_LT(static_cast<double>(parameter_count(config)), 1.001 * experts);
  EXPECT_LT(parameter_count(config), std::numeric_limits<std::int64_t>::max() / 4);
}

}  // namespace
}  // namespace foe
