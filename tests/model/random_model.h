// Writes small random model folders of every variant, for tests that run the real forward pass.
#pragma once

#include <deque>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "core/configs.h"
#include "core/model_tensors.h"
#include "weights/config_json.h"
#include "weights/temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {

struct NamedConfig {
  std::string name;
  ModelConfig config;
};

// Kinds of routers and experts that published models have, each with 16 experts or 12, in small_config() and, where
// the name says so, in groups.
inline std::vector<NamedConfig> routing_configs() {
  std::vector<NamedConfig> all;
  const auto add = [&](std::string name, ModelConfig c, auto&& change) {
    for_each_experts(c, [&](ExpertsConfig& e) { change(e); });
    all.push_back({std::move(name), std::move(c)});
  };
  const auto deepseek_v3 = [](ExpertsConfig& e) {
    e.router = {.score = RouterScore::kSigmoid,
                .selection_bias = true,
                .groups = 4,
                .top_groups = 2,
                .group_score = GroupScore::kTopTwo,
                .norm = RouterNorm::kSelected,
                .scale = 2.5};
    e.shared = 2;
  };
  const auto every_kind = [](ExpertsConfig& e) {
    e.count = 12;
    e.per_token = 8;
    e.shared = 4;
    e.constant = e.copy = e.zero = 4;
    e.shared_gate = true;
  };
  const ModelConfig plain = small_config();
  ModelConfig two = plain;
  two.expert_groups = 2;
  add("deepseek_v3", plain, deepseek_v3);
  add("deepseek_v2", plain, [](ExpertsConfig& e) {
    e.router = {.groups = 4, .top_groups = 2, .scale = 4};
    e.shared = 1;
  });
  add("softmax_of_selected", plain, [](ExpertsConfig& e) { e.router->score = RouterScore::kSelectedSoftmax; });
  add("top_p", plain, [](ExpertsConfig& e) {
    e.per_token = 6;
    e.router->top_p = 0.5;
  });
  add("slices_of_one", plain, [](ExpertsConfig& e) {
    e.router->score = RouterScore::kOne;
    e.router->scale = 0.25;
    e.storage = ExpertStorage::kSlices;
  });
  add("gated_shared", plain, [](ExpertsConfig& e) {
    e.shared = 3;
    e.shared_gate = true;
  });
  add("affine", plain, [](ExpertsConfig& e) {
    e.count = 12;
    e.constant = 2;
    e.copy = e.zero = 1;
  });
  add("null_experts", plain, [](ExpertsConfig& e) {
    e.per_token = 6;
    e.zero = 16;
    e.router->norm = RouterNorm::kComputing;
  });
  add("every_kind_in_2_groups", two, every_kind);
  add("foe2_deepseek_v3", small_federated(2), deepseek_v3);
  add("foe4_every_kind", small_federated(4), every_kind);
  add("foe2_top_p", small_federated(2), [](ExpertsConfig& e) {
    e.per_token = 8;
    e.router->top_p = 0.6;
  });
  return all;
}

// Kinds of attention that published models have, and all of their parameters at once, in small_config() and federated.
inline std::vector<NamedConfig> attention_configs() {
  std::vector<NamedConfig> all;
  const auto add = [&](std::string name, ModelConfig c, auto&& change) {
    change(c);
    all.push_back({std::move(name), std::move(c)});
  };
  const auto every = [](ModelConfig& c) {
    for (int l = 0; l < c.num_layers(); ++l) {
      AttentionConfig& a = c.attention(l);
      a.value_width = 20;
      a.window = l % 2 == 0 ? 0 : 29;
      a.rotary_share = l == 0 ? 0 : 0.5;
      a.rope_theta = l == 1 ? 1000 : 100;
      a.interleaved = l == 2;
      a.scale = 0.2 + 0.1 * l;
      a.softcap = 5.0 + l;
      a.qkv_bias = l != 1;
      a.output_bias = l != 2;
      a.sinks = l > 0;
    }
  };
  // Windows in two of three layers, which turn by other angles than the others; RoPE in two of three.
  add("local_and_global", small_config(), [](ModelConfig& c) {
    for (const int l : {0, 1}) c.attention(l).window = 24 + 130 * l;
    c.attention(2).rope_theta = 1e6;
    c.attention(2).rope_factor = 8;
  });
  add("without_rope", small_config(), [](ModelConfig& c) { c.attention(1).rotary_share = 0; });
  add("partial_rope", small_config(), [](ModelConfig& c) {
    for_each_attention(c, [](AttentionConfig& a) { a.rotary_share = 0.5, a.interleaved = true; });
  });
  add("capped", small_config(),
      [](ModelConfig& c) { for_each_attention(c, [](AttentionConfig& a) { a.scale = 0.4, a.softcap = 3; }); });
  add("narrow_values", small_config(), [](ModelConfig& c) {
    for_each_attention(c, [](AttentionConfig& a) { a.value_width = 7, a.qk_norm = QkNorm::kFull; });
  });
  add("biases", small_config(),
      [](ModelConfig& c) { for_each_attention(c, [](AttentionConfig& a) { a.qkv_bias = a.output_bias = true; }); });
  add("sinks_and_windows", small_config(), [](ModelConfig& c) {
    for_each_attention(c, [](AttentionConfig& a) { a.sinks = a.qkv_bias = true; });
    c.attention(1).window = 30;
  });
  add("every_parameter", small_config(), every);
  add("dense_every_parameter", small_config(), [&](ModelConfig& c) {
    for_each_experts(c, [](ExpertsConfig& e) { e = dense_experts(e.width); });
    for_each_attention(c, [](AttentionConfig& a) { a.qk_norm = QkNorm::kHead; });
    every(c);
  });
  add("foe2_every_parameter", small_federated(2), every);
  add("foe4_every_parameter", small_federated(4), [&](ModelConfig& c) {
    for_each_attention(c, [](AttentionConfig& a) { a.qk_norm = QkNorm::kFull; });
    c.group_sync = GroupSync::kMean;
    every(c);
  });
  const auto after_rope = [&](const char* name, QkNorm norm) {
    add(name, small_config(), [=](ModelConfig& c) {
      for_each_attention(c, [&](AttentionConfig& a) { a.qk_norm = norm, a.norm_after_rope = true; });
    });
  };
  after_rope("norm_after_rope", QkNorm::kHead);
  after_rope("full_norm_after_rope", QkNorm::kFull);
  return all;
}

inline std::vector<std::int32_t> random_tokens(int count, int vocab, std::uint64_t seed) {
  std::vector<std::int32_t> tokens(count);
  for (int i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(random_bits(seed, i) % vocab);
  return tokens;
}

// A model folder with normally distributed weights, which are so large that M_h is about as large as the residual. The
// destructor removes it.
class RandomModel {
 public:
  explicit RandomModel(const ModelConfig& config, std::uint64_t seed = 1) : config_(config) {
    folder_.write("config.json", model_config_json(config));
    write_tensors(seed);
  }

  const std::string& path() const { return folder_.path(); }
  const ModelConfig& config() const { return config_; }

 private:
  void write_tensors(std::uint64_t seed) {
    const TensorTable table(config_);
    std::deque<std::vector<float>> values;  // the sources point into it
    std::vector<TensorSource> sources;
    const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape, TensorRole role) {
      const auto [mean, deviation] = distribution_of(role);
      std::vector<float>& v =
          values.emplace_back(std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>()));
      for (std::size_t i = 0; i < v.size(); ++i)
        v[i] = static_cast<float>(mean + deviation * random_normal(seed + values.size(), i));
      sources.push_back(float_source(name, DType::kF32, shape, v));
    };
    for_each_tensor(table, [&](const ModelTensor& row, int index) {
      if (row.slices_of.empty())
        add(name_of(row, index), row.shape, row.role);
      else if (index == 0)
        add(row.slices_of, shape_of_all(row), row.role);
    });
    write_tensor_file(folder_ / "model.safetensors", std::move(sources));
  }

  static std::pair<double, double> distribution_of(TensorRole role) {
    switch (role) {
      case TensorRole::kEmbedding:
      case TensorRole::kConstants:
        return {0, 1};
      case TensorRole::kFinalNorm:
      case TensorRole::kAttentionNorm:
      case TensorRole::kAttentionOutputNorm:
      case TensorRole::kExpertNorm:
      case TensorRole::kExpertOutputNorm:
      case TensorRole::kQNorm:
      case TensorRole::kKNorm:
        return {1, 0.1};
      case TensorRole::kHead:
        return {0, 0.1};
      case TensorRole::kVProj:
      case TensorRole::kOProj:
        return {0, 0.15};
      case TensorRole::kSelectionBias:
        return {0, 0.2};
      case TensorRole::kDownProj:
      case TensorRole::kSharedDownProj:
        return {0, 0.5};
      default:
        return {0, 0.3};
    }
  }

  ModelConfig config_;
  TempFolder folder_;
};

}  // namespace foe
