// Writes small random model folders of every variant, for tests that run the real forward pass.
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "core/model_config.h"
#include "weights/config_json.h"
#include "weights/temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {

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
    values.reserve(64 + c.num_layers() * (16 + 3 * c.experts(0).count));  // the sources point into it
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double mean, double deviation) {
      std::size_t size = 1;
      for (const std::int64_t s : shape) size *= s;
      std::vector<float>& v = values.emplace_back(size);
      for (std::size_t i = 0; i < size; ++i)
        v[i] = static_cast<float>(mean + deviation * random_normal(seed + values.size(), i));
      sources.push_back(float_source(name + ".weight", DType::kF32, std::move(shape), v));
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
      if (!c.dense()) add(p + "mlp.gate", {c.experts(0).count, D}, 0, 0.3);
      for (int e = 0; e < c.experts(0).count; ++e) {
        const std::string q = c.dense() ? p + "mlp." : p + "mlp.experts." + std::to_string(e) + ".";
        add(q + "gate_proj", {c.experts(0).width, D}, 0, 0.3);
        add(q + "up_proj", {c.experts(0).width, D}, 0, 0.3);
        add(q + "down_proj", {D, c.experts(0).width}, 0, 0.5);
      }
    }
    write_tensor_file(folder_ / "model.safetensors", std::move(sources));
  }

  ModelConfig config_;
  TempFolder folder_;
};

}  // namespace foe
