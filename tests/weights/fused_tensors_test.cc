// Tensors that have the rows of several roles, or of all experts.
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "folder_builder.h"
#include "weights/packed_tensors.h"
#include "weights/stored_tensors.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Phi-3's: matrices of unequal heights in one tensor.
TEST(StoredTensors, FusedProjectionsAreRows) {
  ModelConfig config = own_config();
  make_dense(config);
  set(config, &AttentionConfig::qk_norm, QkNorm::kNone);
  const TempFolder folder;
  Builder builder;
  for (int l = 0; l < 2; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) builder.add(p + norm, {6});
    builder.add(p + "self_attn.qkv_proj.weight", {8 + 4 + 4, 6});
    builder.add(p + "self_attn.o_proj.weight", {6, 8});
    builder.add(p + "mlp.gate_up_proj.weight", {2 * 3, 6});
    builder.add(p + "mlp.down_proj.weight", {6, 3});
  }
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) builder.add(name, {5, 6});
  builder.add("model.norm.weight", {6});
  builder.write(folder);
  const TensorFolder tensors(folder.path());
  const StoredTensors stored(tensors, config);
  EXPECT_NO_THROW(check_tensors(stored, stored_formats(stored, config)));
  const auto expect_rows = [&](const char* name, TensorRole role, std::int64_t first, std::int64_t count) {
    const Tensor all = tensors.find(fmt::format("model.layers.1.{}", name)).value();
    const Tensor part = stored.find(stored.table().at(role, 1)).tensor;
    EXPECT_THAT(part.shape, ElementsAre(count, 6)) << name;
    EXPECT_EQ(part.bytes.data(), all.bytes.data() + first * 6 * 4) << name;
  };
  expect_rows("self_attn.qkv_proj.weight", TensorRole::kQProj, 0, 8);
  expect_rows("self_attn.qkv_proj.weight", TensorRole::kKProj, 8, 4);
  expect_rows("self_attn.qkv_proj.weight", TensorRole::kVProj, 12, 4);
  expect_rows("mlp.gate_up_proj.weight", TensorRole::kGateProj, 0, 3);
  expect_rows("mlp.gate_up_proj.weight", TensorRole::kUpProj, 3, 3);
  set(config, &AttentionConfig::value_width, 4);
  const StoredTensors wider(tensors, config);
  EXPECT_THAT(error_of([&] { wider.find(wider.table().at(TensorRole::kVProj, 0)); }),
              HasSubstr("model.layers.0.self_attn.qkv_proj.weight: expected shape [20, 6], got [16, 6]"));
}

// Granite's experts and shared experts are fused; ERNIE's selection bias is a matrix of one row.
TEST(StoredTensors, RolesOfSlicesAndOfAllExpertsAreRowsOfOneTensor) {
  ModelConfig config = own_config();
  set(config, &AttentionConfig::qk_norm, QkNorm::kNone);
  for_each_experts(config, [](ExpertsConfig& e) {
    e.shared = 2;
    e.shared_width = 5;
    e.router->selection_bias = true;
  });
  const TempFolder folder;
  Builder builder;
  for (int l = 0; l < 2; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) builder.add(p + norm, {6});
    builder.add(p + "self_attn.q_proj.weight", {8, 6});
    for (const char* name : {"self_attn.k_proj.weight", "self_attn.v_proj.weight"}) builder.add(p + name, {4, 6});
    builder.add(p + "self_attn.o_proj.weight", {6, 8});
    builder.add(p + "block_sparse_moe.router.layer.weight", {4, 6});
    builder.add(p + "mlp.moe_statics.e_score_correction_bias", {1, 4});
    builder.add(p + "block_sparse_moe.input_linear.weight", {4, 2 * 3, 6});
    builder.add(p + "block_sparse_moe.output_linear.weight", {4, 6, 3});
    builder.add(p + "shared_mlp.input_linear.weight", {2 * 2 * 5, 6});
    builder.add(p + "shared_mlp.output_linear.weight", {6, 2 * 5});
  }
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) builder.add(name, {5, 6});
  builder.add("model.norm.weight", {6});
  builder.add("model.layers.2.eh_proj.weight", {6, 12});
  builder.write(folder);
  const TensorFolder tensors(folder.path());
  config.unused_tensors = {"model.layers.2."};
  const StoredTensors stored(tensors, config);
  EXPECT_NO_THROW(check_tensors(stored, stored_formats(stored, config)));
  const auto expect_at = [&](TensorRole role, int index, const char* name, std::vector<std::int64_t> shape,
                             std::int64_t first, int column = 0) {
    const Tensor all = tensors.find(fmt::format("model.layers.1.{}", name)).value();
    const StoredTensor part = stored.find(stored.table().at(role, 1), index);
    EXPECT_EQ(part.tensor.shape, shape) << name;
    EXPECT_EQ(part.tensor.bytes.data(), all.bytes.data() + first * 4) << name;
    EXPECT_EQ(part.column, column) << name;
  };
  expect_at(TensorRole::kGateProj, 2, "block_sparse_moe.input_linear.weight", {3, 6}, 2 * 36);
  expect_at(TensorRole::kUpProj, 2, "block_sparse_moe.input_linear.weight", {3, 6}, 2 * 36 + 18);
  expect_at(TensorRole::kDownProj, 2, "block_sparse_moe.output_linear.weight", {6, 3}, 2 * 18);
  expect_at(TensorRole::kSharedGateProj, 1, "shared_mlp.input_linear.weight", {5, 6}, 5 * 6);
  expect_at(TensorRole::kSharedUpProj, 1, "shared_mlp.input_linear.weight", {5, 6}, (10 + 5) * 6);
  expect_at(TensorRole::kSharedDownProj, 1, "shared_mlp.output_linear.weight", {6, 10}, 0, 5);
  expect_at(TensorRole::kSelectionBias, 0, "mlp.moe_statics.e_score_correction_bias", {4}, 0);
  config.unused_tensors.clear();
  const StoredTensors strict(tensors, config);
  EXPECT_THAT(error_of([&] { check_tensors(strict, stored_formats(strict, config)); }),
              HasSubstr("got model.layers.2.eh_proj.weight, which nothing would read"));
}

}  // namespace
}  // namespace foe
