#include "weights/stored_tensors.h"

#include <deque>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "temp_folder.h"
#include "weights/config_json.h"
#include "weights/model_weights.h"
#include "weights/packed_tensors.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig own_config() {
  ModelConfig config = countable_config();
  config.hidden_size = 6;
  config.vocab_size = 5;
  set(config, &AttentionConfig::key_width, 2);
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  set(config, &ExpertsConfig::width, 3);
  return config;
}

// A model folder under construction: every tensor holds its serial number in its first element, and counts up from
// there.
class Builder {
 public:
  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto size = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    auto& values = values_.emplace_back(static_cast<std::size_t>(size));
    std::iota(values.begin(), values.end(), 1000.0f * static_cast<float>(values_.size()));
    sources_.push_back(float_source(name, DType::kF32, shape, values));
  }
  void write(const TempFolder& folder) { write_tensor_file(folder / "model.safetensors", sources_); }

 private:
  std::deque<std::vector<float>> values_;
  std::vector<TensorSource> sources_;
};

enum class Experts { kOlmoe, kMixtral, kFused, kDense };

void add_model(Builder& builder, const ModelConfig& config, Experts experts) {
  const std::int64_t D = config.hidden_size, F = config.experts(0).width, E = config.experts(0).count;
  const std::int64_t C = config.heads().key_width, N = config.heads().query_heads, M = config.heads().kv_heads;
  for (int l = 0; l < config.num_layers(); ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    builder.add(p + "input_layernorm.weight", {D});
    builder.add(p + "post_attention_layernorm.weight", {D});
    builder.add(p + "self_attn.q_proj.weight", {N * C, D});
    builder.add(p + "self_attn.k_proj.weight", {M * C, D});
    builder.add(p + "self_attn.v_proj.weight", {M * C, D});
    builder.add(p + "self_attn.o_proj.weight", {D, N * C});
    if (config.heads().qk_norm != QkNorm::kNone) {
      const bool full = config.heads().qk_norm == QkNorm::kFull;
      builder.add(p + "self_attn.q_norm.weight", {full ? N * C : C});
      builder.add(p + "self_attn.k_norm.weight", {full ? M * C : C});
    }
    const bool mixtral = experts == Experts::kMixtral;
    if (experts != Experts::kDense) builder.add(p + (mixtral ? "block_sparse_moe" : "mlp") + ".gate.weight", {E, D});
    if (experts == Experts::kFused) {
      builder.add(p + "mlp.experts.gate_up_proj", {E, 2 * F, D});
      builder.add(p + "mlp.experts.down_proj", {E, D, F});
      continue;
    }
    for (int e = 0; e < config.experts(0).count; ++e) {
      const std::string q = experts == Experts::kDense ? p + "mlp."
                            : mixtral                  ? fmt::format("{}block_sparse_moe.experts.{}.", p, e)
                                                       : fmt::format("{}mlp.experts.{}.", p, e);
      builder.add(q + (mixtral ? "w1" : "gate_proj") + ".weight", {F, D});
      builder.add(q + (mixtral ? "w3" : "up_proj") + ".weight", {F, D});
      builder.add(q + (mixtral ? "w2" : "down_proj") + ".weight", {D, F});
    }
  }
  builder.add("model.embed_tokens.weight", {config.vocab_size, D});
  builder.add("model.norm.weight", {D});
  if (!config.tie_word_embeddings) builder.add("lm_head.weight", {config.vocab_size, D});
}

class Model {
 public:
  Model(const ModelConfig& config, Experts experts, const std::function<void(Builder&)>& more = {}) {
    Builder builder;
    add_model(builder, config, experts);
    if (more) more(builder);
    builder.write(folder_);
    tensors_.emplace(folder_.path());
  }
  const TensorFolder& tensors() const { return *tensors_; }

 private:
  TempFolder folder_;
  std::optional<TensorFolder> tensors_;
};

// The tensor with this role; none if the model has none.
std::optional<Tensor> find(const Model& model, const ModelConfig& config, TensorRole role, int layer = -1) {
  const StoredTensors stored(model.tensors(), config);
  const ModelTensor* row = stored.table().find(role, layer);
  if (!row) return std::nullopt;
  return stored.find(*row).tensor;
}

struct Expert {
  Tensor gate, up, down;
};

Expert find_expert(const Model& model, const ModelConfig& config, int layer, int id) {
  const StoredTensors stored(model.tensors(), config);
  const ExpertMatrices m = expert_matrices(stored.table(), config, layer, id);
  return {stored.find(m.gate, m.index).tensor, stored.find(m.up, m.index).tensor, stored.find(m.down, m.index).tensor};
}

void check(const Model& model, const ModelConfig& config) {
  const StoredTensors stored(model.tensors(), config);
  check_tensors(stored, stored_formats(stored, config));
}

void expect_is(const TensorFolder& tensors, const std::string& name, const Tensor& tensor) {
  const Tensor named = tensors.find(name).value();
  EXPECT_EQ(tensor.bytes.data(), named.bytes.data()) << name;
  EXPECT_EQ(tensor.shape, named.shape) << name;
}

TEST(StoredTensors, AttentionAndNorms) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe);
  for (int l = 0; l < 2; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    const std::pair<TensorRole, const char*> names[] = {
        {TensorRole::kAttentionNorm, "input_layernorm"},
        {TensorRole::kQProj, "self_attn.q_proj"},
        {TensorRole::kKProj, "self_attn.k_proj"},
        {TensorRole::kVProj, "self_attn.v_proj"},
        {TensorRole::kOProj, "self_attn.o_proj"},
        {TensorRole::kQNorm, "self_attn.q_norm"},
        {TensorRole::kKNorm, "self_attn.k_norm"},
        {TensorRole::kExpertNorm, "post_attention_layernorm"},
        {TensorRole::kRouter, "mlp.gate"},
    };
    for (const auto& [role, name] : names)
      expect_is(model.tensors(), p + name + ".weight", find(model, config, role, l).value());
    EXPECT_THAT(find(model, config, TensorRole::kQNorm, l)->shape, ElementsAre(8));
    EXPECT_THAT(find(model, config, TensorRole::kKNorm, l)->shape, ElementsAre(4));
  }
}

TEST(StoredTensors, EachKindOfQkNorm) {
  ModelConfig config = own_config();
  set(config, &AttentionConfig::qk_norm, QkNorm::kHead);
  const Model head(config, Experts::kOlmoe);
  EXPECT_THAT(find(head, config, TensorRole::kQNorm, 0)->shape, ElementsAre(2));
  EXPECT_THAT(find(head, config, TensorRole::kKNorm, 0)->shape, ElementsAre(2));
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  EXPECT_THAT(error_of([&] { check(head, config); }),
              HasSubstr("model.layers.0.self_attn.q_norm.weight: expected shape [8], got [2]"));
  set(config, &AttentionConfig::qk_norm, QkNorm::kNone);
  EXPECT_THAT(error_of([&] { check(head, config); }),
              HasSubstr("expected no tensors but those that config.json describes, got "
                        "model.layers.0.self_attn.k_norm.weight, which nothing would read"));
  const Model none(config, Experts::kOlmoe);
  EXPECT_NO_THROW(check(none, config));
  EXPECT_FALSE(find(none, config, TensorRole::kQNorm, 0).has_value());
}

TEST(StoredTensors, ExpertsOfOlmoe) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe);
  const Expert expert = find_expert(model, config, 1, 3);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.gate_proj.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.up_proj.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.down_proj.weight", expert.down);
}

TEST(StoredTensors, ExpertsOfMixtral) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kMixtral);
  const Expert expert = find_expert(model, config, 1, 2);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w1.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w3.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w2.weight", expert.down);
  expect_is(model.tensors(), "model.layers.0.block_sparse_moe.gate.weight",
            find(model, config, TensorRole::kRouter, 0).value());
}

TEST(StoredTensors, FusedExpertsAreSlices) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kFused);
  const Tensor gate_up = model.tensors().find("model.layers.1.mlp.experts.gate_up_proj").value();
  const Tensor down = model.tensors().find("model.layers.1.mlp.experts.down_proj").value();
  for (int e = 0; e < 4; ++e) {
    const Expert expert = find_expert(model, config, 1, e);
    EXPECT_THAT(expert.gate.shape, ElementsAre(3, 6));
    EXPECT_THAT(expert.up.shape, ElementsAre(3, 6));
    EXPECT_THAT(expert.down.shape, ElementsAre(6, 3));
    // [E, 2F, D]: an expert is 2 * 18 floats of 4 bytes, the gate's before the up projection's.
    EXPECT_EQ(expert.gate.bytes.data(), gate_up.bytes.data() + e * 36 * 4);
    EXPECT_EQ(expert.up.bytes.data(), gate_up.bytes.data() + (e * 36 + 18) * 4);
    EXPECT_EQ(expert.down.bytes.data(), down.bytes.data() + e * 18 * 4);
    EXPECT_EQ(expert.up.size(), 18);
  }
}

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

TEST(StoredTensors, ADenseLayerIsOneExpert) {
  ModelConfig config = own_config();
  make_dense(config);
  const Model model(config, Experts::kDense);
  EXPECT_FALSE(find(model, config, TensorRole::kRouter, 0).has_value());
  const Expert expert = find_expert(model, config, 1, 0);
  expect_is(model.tensors(), "model.layers.1.mlp.gate_proj.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.mlp.up_proj.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.mlp.down_proj.weight", expert.down);
}

TEST(StoredTensors, EndsTiedAndUntied) {
  ModelConfig config = own_config();
  const Model untied(config, Experts::kOlmoe);
  expect_is(untied.tensors(), "model.embed_tokens.weight", find(untied, config, TensorRole::kEmbedding).value());
  expect_is(untied.tensors(), "model.norm.weight", find(untied, config, TensorRole::kFinalNorm).value());
  expect_is(untied.tensors(), "lm_head.weight", StoredTensors(untied.tensors(), config).head());
  config.tie_word_embeddings = true;
  const Model tied(config, Experts::kOlmoe);
  expect_is(tied.tensors(), "model.embed_tokens.weight", StoredTensors(tied.tensors(), config).head());
  EXPECT_NO_THROW(check(tied, config));
  // A head that is there counts, as in transformers; usually it is a copy of the embedding.
  EXPECT_NO_THROW(check(untied, config));
  expect_is(untied.tensors(), "lm_head.weight", StoredTensors(untied.tensors(), config).head());
  const Model misshapen(config, Experts::kOlmoe, [](Builder& builder) { builder.add("lm_head.weight", {5, 5}); });
  EXPECT_THAT(error_of([&] { check(misshapen, config); }),
              HasSubstr("lm_head.weight: expected shape [5, 6], got [5, 5]"));
  const Model biased(config, Experts::kOlmoe, [](Builder& builder) { builder.add("lm_head.bias", {5}); });
  EXPECT_THAT(error_of([&] { check(biased, config); }), HasSubstr("got lm_head.bias, which nothing would read"));
  config.tie_word_embeddings = false;
  EXPECT_THAT(error_of([&] { check(tied, config); }),
              HasSubstr("lm_head.weight: expected a tensor of shape [5, 6], got no such tensor"));
}

TEST(StoredTensors, NamesWhatIsMissingOrMisshapen) {
  ModelConfig config = own_config();
  const Model olmoe(config, Experts::kOlmoe);
  const Model fused(config, Experts::kFused);
  set(config, &ExpertsConfig::width, 4);
  EXPECT_THAT(error_of([&] { check(olmoe, config); }),
              HasSubstr("model.layers.0.mlp.experts.0.down_proj.weight: expected shape [6, 4], got [6, 3]"));
  EXPECT_THAT(error_of([&] { find_expert(olmoe, config, 0, 1); }),
              HasSubstr("model.layers.0.mlp.experts.1.gate_proj.weight: expected shape [4, 6], got [3, 6]"));
  EXPECT_THAT(error_of([&] { find_expert(fused, config, 0, 1); }),
              HasSubstr("model.layers.0.mlp.experts.gate_up_proj: expected shape [4, 8, 6], got [4, 6, 6]"));
  config = own_config();
  set_layers(config, 3);
  EXPECT_THAT(error_of([&] { check(olmoe, config); }),
              HasSubstr("model.layers.2.input_layernorm.weight: expected a tensor of shape [6], got no such tensor"));
}

// What nobody reads would be missing in the answers.
TEST(StoredTensors, RefusesWhatTheModelDoesNotHave) {
  const ModelConfig config = own_config();
  for (const char* name : {"model.layers.1.self_attn.k_proj.bias", "model.layers.1.mlp.experts.3.up_proj.bias",
                           "model.layers.2.input_layernorm.weight", "model.layers.0.mlp.experts.4.up_proj.weight",
                           "lm_head.bias", "vision_tower.patch_embed.weight"}) {
    const Model model(config, Experts::kOlmoe, [&](Builder& builder) { builder.add(name, {4}); });
    EXPECT_THAT(
        error_of([&] { check(model, config); }),
        HasSubstr(fmt::format("expected no tensors but those that config.json describes, got {}, which", name)));
  }
  // Old folders have the frequencies of RoPE, which are computed.
  const Model model(config, Experts::kOlmoe, [](Builder& builder) {
    for (int l = 0; l < 2; ++l) builder.add(fmt::format("model.layers.{}.self_attn.rotary_emb.inv_freq", l), {1});
  });
  EXPECT_NO_THROW(check(model, config));
}

TEST(StoredTensors, RefusesTwoDialectsAtOnce) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe, [](Builder& builder) {
    builder.add("model.layers.0.block_sparse_moe.gate.weight", {4, 6});
  });
  EXPECT_THAT(error_of([&] { check(model, config); }), HasSubstr("got model.layers.0.mlp.gate.weight, which"));
}

// The folders that other programs have written, and ours, have the tensors of the table and no others.
TEST(StoredTensors, AreThoseOfGoldenAndShippedModels) {
  for (const char* name : {"tests/golden/olmoe_tiny", "tests/golden/qwen3moe_tiny", "tests/golden/mixtral_tiny",
                           "models/foe-8m", "models/moe-8m"}) {
    const std::string path = std::string(FOE_SOURCE_DIR) + "/" + name;
    const ModelConfig config = load_model_config(path);
    const TensorFolder folder(path);
    const StoredTensors stored(folder, config);
    EXPECT_NO_THROW(check_tensors(stored, stored_formats(stored, config))) << name;
    std::int64_t parameters = 0;
    for (const TensorFile& file : folder.files())
      for (const TensorInfo& info : file.tensors())
        parameters += std::accumulate(info.shape.begin(), info.shape.end(), std::int64_t{1}, std::multiplies<>());
    EXPECT_EQ(parameters, parameter_count(config)) << name;
  }
}

// Vectors that a configuration can describe and that validate() refuses, since nothing computes with them yet.
TEST(StoredTensors, BiasesSinksAndSecondNormsAreLoaded) {
  ModelConfig config = own_config();
  set(config, &AttentionConfig::qkv_bias, true);
  set(config, &AttentionConfig::output_bias, true);
  set(config, &AttentionConfig::sinks, true);
  for (LayerConfig& layer : config.layers)
    for (BlockConfig& block : layer.blocks) block.norm = BlockNorm::kBoth;
  const std::pair<const char*, std::int64_t> more[] = {{"self_attn.q_proj.bias", 8},
                                                       {"self_attn.k_proj.bias", 4},
                                                       {"self_attn.v_proj.bias", 4},
                                                       {"self_attn.o_proj.bias", 6},
                                                       {"self_attn.sinks", 4},
                                                       {"pre_feedforward_layernorm.weight", 6},
                                                       {"post_feedforward_layernorm.weight", 6}};
  const Model model(config, Experts::kOlmoe, [&](Builder& builder) {
    for (int l = 0; l < 2; ++l)
      for (const auto& [name, size] : more) builder.add(fmt::format("model.layers.{}.{}", l, name), {size});
  });
  EXPECT_NO_THROW(check(model, config));
  const auto values = [&](const char* name, int first, int count) {
    std::vector<float> floats(count);
    read_floats(model.tensors().find(fmt::format("model.layers.1.{}", name)).value(), first, floats);
    return floats;
  };
  ThreadPool pool(1);
  const Share second_half{
      .groups = {0, 1}, .kv_heads = {1, 2}, .vocab = {3, 5}, .layers = std::vector<ExpertsShare>(2, {{2, 4}, {0, 3}})};
  const Weights weights = load_weights(pool, model.tensors().model_dir(), config, second_half, {});
  const LayerWeights& w = weights.layers[1];
  EXPECT_EQ(w.q_bias, values("self_attn.q_proj.bias", 4, 4));
  EXPECT_EQ(w.k_bias, values("self_attn.k_proj.bias", 2, 2));
  EXPECT_EQ(w.v_bias, values("self_attn.v_proj.bias", 2, 2));
  EXPECT_EQ(w.o_bias_D, values("self_attn.o_proj.bias", 0, 6));
  EXPECT_EQ(w.sinks_n, values("self_attn.sinks", 2, 2));
  EXPECT_EQ(w.attention_norm_D, values("input_layernorm.weight", 0, 6));
  EXPECT_EQ(w.attention_output_norm_D, values("post_attention_layernorm.weight", 0, 6));
  EXPECT_EQ(w.expert_norm_D, values("pre_feedforward_layernorm.weight", 0, 6));
  EXPECT_EQ(w.expert_output_norm_D, values("post_feedforward_layernorm.weight", 0, 6));
  EXPECT_EQ(w.q_norm, values("self_attn.q_norm.weight", 4, 4));
}

TEST(StoredTensorsDeathTest, LayersAndExpertsOutOfRangeAreBugs) {
  const ModelConfig config = own_config();
  const TensorTable table(config);
  EXPECT_DEATH(table.find(TensorRole::kRouter, 2), "layer 2 of 2");
  EXPECT_DEATH(table.at(TensorRole::kSinks, 1), "layer 1 has no tensor with the role");
  EXPECT_DEATH(expert_matrices(table, config, 0, 4), "expert 4 of 4");
}

}  // namespace
}  // namespace foe
