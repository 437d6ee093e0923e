#include "weights/layer_tensors.h"

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
#include "weights/tensor_writer.h"

namespace foe {
namespace {

using testing::AllOf;
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

void expect_is(const TensorFolder& tensors, const std::string& name, const Tensor& tensor) {
  const Tensor named = tensors.find(name).value();
  EXPECT_EQ(tensor.bytes.data(), named.bytes.data()) << name;
  EXPECT_EQ(tensor.shape, named.shape) << name;
}

TEST(LayerTensors, AttentionAndNorms) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe);
  const TensorFolder& tensors = model.tensors();
  for (int l = 0; l < 2; ++l) {
    const LayerTensors layer = layer_tensors(tensors, config, l);
    const std::string p = fmt::format("model.layers.{}.", l);
    expect_is(tensors, p + "input_layernorm.weight", layer.input_norm);
    const AttentionTensors attention = attention_tensors(tensors, config, l);
    expect_is(tensors, p + "self_attn.q_proj.weight", attention.q);
    expect_is(tensors, p + "self_attn.k_proj.weight", attention.k);
    expect_is(tensors, p + "self_attn.v_proj.weight", attention.v);
    expect_is(tensors, p + "self_attn.o_proj.weight", attention.o);
    expect_is(tensors, p + "self_attn.q_norm.weight", layer.q_norm.value());
    expect_is(tensors, p + "self_attn.k_norm.weight", layer.k_norm.value());
    expect_is(tensors, p + "post_attention_layernorm.weight", layer.post_attention_norm);
    expect_is(tensors, p + "mlp.gate.weight", layer.router.value());
    EXPECT_THAT(layer.q_norm->shape, ElementsAre(8));
    EXPECT_THAT(layer.k_norm->shape, ElementsAre(4));
  }
}

TEST(LayerTensors, EachKindOfQkNorm) {
  ModelConfig config = own_config();
  set(config, &AttentionConfig::qk_norm, QkNorm::kHead);
  const Model head(config, Experts::kOlmoe);
  EXPECT_THAT(layer_tensors(head.tensors(), config, 0).q_norm->shape, ElementsAre(2));
  EXPECT_THAT(layer_tensors(head.tensors(), config, 0).k_norm->shape, ElementsAre(2));
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  EXPECT_THAT(error_of([&] { layer_tensors(head.tensors(), config, 0); }),
              HasSubstr("model.layers.0.self_attn.q_norm.weight: expected shape [8], got [2]"));
  set(config, &AttentionConfig::qk_norm, QkNorm::kNone);
  EXPECT_THAT(error_of([&] { layer_tensors(head.tensors(), config, 0); }),
              HasSubstr("expected no model.layers.0.self_attn.q_norm.weight (qk_norm is \"none\"), got one"));
  const Model none(config, Experts::kOlmoe);
  EXPECT_FALSE(layer_tensors(none.tensors(), config, 0).q_norm.has_value());
  EXPECT_FALSE(layer_tensors(none.tensors(), config, 0).k_norm.has_value());
}

TEST(LayerTensors, ExpertsOfOlmoe) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe);
  const ExpertTensors expert = expert_tensors(model.tensors(), config, 1, 3);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.gate_proj.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.up_proj.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.mlp.experts.3.down_proj.weight", expert.down);
}

TEST(LayerTensors, ExpertsOfMixtral) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kMixtral);
  const ExpertTensors expert = expert_tensors(model.tensors(), config, 1, 2);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w1.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w3.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.block_sparse_moe.experts.2.w2.weight", expert.down);
  expect_is(model.tensors(), "model.layers.0.block_sparse_moe.gate.weight",
            layer_tensors(model.tensors(), config, 0).router.value());
}

TEST(LayerTensors, FusedExpertsAreSlices) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kFused);
  const Tensor gate_up = model.tensors().find("model.layers.1.mlp.experts.gate_up_proj").value();
  const Tensor down = model.tensors().find("model.layers.1.mlp.experts.down_proj").value();
  for (int e = 0; e < 4; ++e) {
    const ExpertTensors expert = expert_tensors(model.tensors(), config, 1, e);
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

TEST(LayerTensors, ADenseLayerIsOneExpert) {
  ModelConfig config = own_config();
  make_dense(config);
  const Model model(config, Experts::kDense);
  EXPECT_FALSE(layer_tensors(model.tensors(), config, 0).router.has_value());
  const ExpertTensors expert = expert_tensors(model.tensors(), config, 1, 0);
  expect_is(model.tensors(), "model.layers.1.mlp.gate_proj.weight", expert.gate);
  expect_is(model.tensors(), "model.layers.1.mlp.up_proj.weight", expert.up);
  expect_is(model.tensors(), "model.layers.1.mlp.down_proj.weight", expert.down);
}

TEST(LayerTensors, EndsTiedAndUntied) {
  ModelConfig config = own_config();
  const Model untied(config, Experts::kOlmoe);
  const EndTensors ends = end_tensors(untied.tensors(), config);
  expect_is(untied.tensors(), "model.embed_tokens.weight", ends.embed);
  expect_is(untied.tensors(), "model.norm.weight", ends.norm);
  expect_is(untied.tensors(), "lm_head.weight", head_tensor(untied.tensors(), config));
  config.tie_word_embeddings = true;
  const Model tied(config, Experts::kOlmoe);
  expect_is(tied.tensors(), "model.embed_tokens.weight", head_tensor(tied.tensors(), config));
  config.tie_word_embeddings = false;
  EXPECT_THAT(error_of([&] { head_tensor(tied.tensors(), config); }),
              HasSubstr("lm_head.weight: expected a tensor of shape [5, 6], got no such tensor"));
}

TEST(LayerTensors, NamesWhatIsMissingOrMisshapen) {
  ModelConfig config = own_config();
  const Model olmoe(config, Experts::kOlmoe);
  const Model fused(config, Experts::kFused);
  set(config, &ExpertsConfig::width, 4);
  EXPECT_THAT(error_of([&] { expert_tensors(olmoe.tensors(), config, 0, 1); }),
              HasSubstr("model.layers.0.mlp.experts.1.gate_proj.weight: expected shape [4, 6], got [3, 6]"));
  EXPECT_THAT(error_of([&] { expert_tensors(fused.tensors(), config, 0, 1); }),
              HasSubstr("model.layers.0.mlp.experts.gate_up_proj: expected shape [4, 8, 6], got [4, 6, 6]"));
  config = own_config();
  set_layers(config, 3);
  EXPECT_THAT(error_of([&] { layer_tensors(olmoe.tensors(), config, 2); }),
              HasSubstr("model.layers.2.input_layernorm.weight: expected a tensor of shape [6], got no such tensor"));
}

TEST(LayerTensors, RefusesBiases) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe,
                    [](Builder& builder) { builder.add("model.layers.1.self_attn.k_proj.bias", {4}); });
  EXPECT_NO_THROW(attention_tensors(model.tensors(), config, 0));
  EXPECT_THAT(error_of([&] { attention_tensors(model.tensors(), config, 1); }),
              AllOf(HasSubstr("expected model.layers.1.self_attn.k_proj without a bias"),
                    HasSubstr("got model.layers.1.self_attn.k_proj.bias")));
}

TEST(LayerTensorsDeathTest, LayersAndExpertsOutOfRangeAreBugs) {
  const ModelConfig config = own_config();
  const Model model(config, Experts::kOlmoe);
  EXPECT_DEATH(layer_tensors(model.tensors(), config, 2), "layer 2 of 2");
  EXPECT_DEATH(expert_tensors(model.tensors(), config, 0, 4), "expert 4 of 4");
}

}  // namespace
}  // namespace foe
