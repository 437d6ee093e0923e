// Writes small random model folders of every variant, for tests that run the real forward pass.
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "core/configs.h"
#include "core/model_config.h"
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
    e.router = {RouterScore::kSigmoid, true, 4, 2, GroupScore::kTopTwo, 1, RouterNorm::kSelected, 2.5};
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
    e.router = {RouterScore::kSoftmax, false, 4, 2, GroupScore::kMax, 1, RouterNorm::kNone, 4};
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
    const ModelConfig& c = config_;
    const std::int64_t D = c.hidden_size, n = c.heads().query_heads * c.heads().key_width,
                       m = c.heads().kv_heads * c.heads().key_width;
    std::vector<std::vector<float>> values;
    std::vector<TensorSource> sources;
    values.reserve(64 + c.num_layers() * (24 + 3 * c.experts(0).count));  // the sources point into it
    const auto add_plain = [&](const std::string& name, std::vector<std::int64_t> shape, double mean,
                               double deviation) {
      std::size_t size = 1;
      for (const std::int64_t s : shape) size *= s;
      std::vector<float>& v = values.emplace_back(size);
      for (std::size_t i = 0; i < size; ++i)
        v[i] = static_cast<float>(mean + deviation * random_normal(seed + values.size(), i));
      sources.push_back(float_source(name, DType::kF32, std::move(shape), v));
    };
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double mean, double deviation) {
      add_plain(name + ".weight", std::move(shape), mean, deviation);
    };
    const auto add_network = [&](const std::string& name, std::int64_t width) {
      add(name + "gate_proj", {width, D}, 0, 0.3);
      add(name + "up_proj", {width, D}, 0, 0.3);
      add(name + "down_proj", {D, width}, 0, 0.5);
    };
    add("model.embed_tokens", {c.vocab_size, D}, 0, 1);
    add("model.norm", {D}, 1, 0.1);
    if (!c.tie_word_embeddings) add("lm_head", {c.vocab_size, D}, 0, 0.1);
    for (int l = 0; l < c.num_layers(); ++l) {
      const std::string p = "model.layers." + std::to_string(l) + ".";
      add(p + "input_layernorm", {D}, 1, 0.1);
      add(p + "post_attention_layernorm", {D}, 1, 0.1);
      add(p + "self_attn.q_proj", {n, D}, 0, 0.3);
      add(p + "self_attn.k_proj", {m, D}, 0, 0.3);
      add(p + "self_attn.v_proj", {m, D}, 0, 0.15);
      add(p + "self_attn.o_proj", {D, n}, 0, 0.15);
      if (c.heads().qk_norm != QkNorm::kNone) {
        const bool full = c.heads().qk_norm == QkNorm::kFull;
        add(p + "self_attn.q_norm", {full ? n : c.heads().key_width}, 1, 0.1);
        add(p + "self_attn.k_norm", {full ? m : c.heads().key_width}, 1, 0.1);
      }
      add_experts(l, p + "mlp.", add, add_plain, add_network);
    }
    write_tensor_file(folder_ / "model.safetensors", std::move(sources));
  }

  template <typename Add, typename AddPlain, typename AddNetwork>
  void add_experts(int layer, const std::string& p, const Add& add, const AddPlain& add_plain,
                   const AddNetwork& add_network) {
    const ExpertsConfig& e = config_.experts(layer);
    const ExpertTable table = expert_table(config_, layer);
    const std::int64_t D = config_.hidden_size;
    if (e.dense()) return add_network(p, e.width);
    add(p + "gate", {table.scored(), D}, 0, 0.3);
    if (e.storage == ExpertStorage::kSlices) add_network(p, std::int64_t{e.count} * e.width);
    for (int i = 0; i < e.count && e.storage == ExpertStorage::kOwn; ++i)
      add_network(p + "experts." + std::to_string(i) + ".", e.width);
    if (e.router->selection_bias) add_plain(p + "gate.e_score_correction_bias", {table.scored()}, 0, 0.2);
    if (e.shared > 0) add_network(p + "shared_experts.", std::int64_t{e.shared} * e.width);
    if (e.shared_gate) add(p + "shared_expert_gate", {1, D}, 0, 0.3);
    if (e.constant == 0) return;
    add_plain(p + "constant_experts.gates", {2 * e.constant, D}, 0, 0.3);
    add_plain(p + "constant_experts.vectors", {e.constant, D}, 0, 1);
  }

  ModelConfig config_;
  TempFolder folder_;
};

}  // namespace foe
