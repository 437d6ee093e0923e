#include "weights/stored_tensors.h"

#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "folder_builder.h"
#include "temp_folder.h"
#include "weights/config_json.h"
#include "weights/model_weights.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

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
