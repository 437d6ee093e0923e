#include "train/layout.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "base/rng.h"

namespace foe::train {
namespace {

constexpr double kInitStd = 0.02;

class Builder {
 public:
  explicit Builder(Layout& layout) : layout_(layout) {}

  std::size_t matrix(std::string name, int rows, int columns, double scale = 1) {
    return add(std::move(name), {rows, columns}, kInitStd * scale, true);
  }
  std::size_t norm(std::string name, int width) { return add(std::move(name), {width}, 0, false); }

 private:
  std::size_t add(std::string name, std::vector<std::int64_t> shape, double init_std, bool decay) {
    std::size_t size = 1;
    for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
    const std::size_t offset = layout_.size;
    layout_.tensors.push_back({std::move(name), std::move(shape), offset, size, init_std, decay});
    layout_.size += (size + 15) / 16 * 16;
    return offset;
  }

  Layout& layout_;
};

LayerOffsets add_layer(Builder& add, const ModelConfig& config, const Dims& d, int layer, double output_scale) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const auto name = [&](const char* rest) { return prefix + rest + ".weight"; };
  LayerOffsets at;
  at.input_norm = add.norm(name("input_layernorm"), d.hidden);
  at.q = add.matrix(name("self_attn.q_proj"), d.heads * d.head_dim, d.hidden);
  at.k = add.matrix(name("self_attn.k_proj"), d.kv_heads * d.head_dim, d.hidden);
  at.v = add.matrix(name("self_attn.v_proj"), d.kv_heads * d.head_dim, d.hidden);
  at.o = add.matrix(name("self_attn.o_proj"), d.hidden, d.heads * d.head_dim, output_scale);
  if (config.heads().qk_norm != QkNorm::kNone) {
    const bool full = config.heads().qk_norm == QkNorm::kFull;
    at.q_norm = add.norm(name("self_attn.q_norm"), full ? d.heads * d.head_dim : d.head_dim);
    at.k_norm = add.norm(name("self_attn.k_norm"), full ? d.kv_heads * d.head_dim : d.head_dim);
  }
  at.post_norm = add.norm(name("post_attention_layernorm"), d.hidden);
  at.router = add.matrix(name("mlp.gate"), d.experts, d.hidden);
  // gate and up must follow each other without padding, because they are multiplied in one product.
  if (d.width * d.hidden % 16 != 0)
    fail("moe_intermediate_size * hidden_size: expected a multiple of 16, got {}", d.width * d.hidden);
  for (int e = 0; e < d.experts; ++e) {
    const std::string expert = fmt::format("{}mlp.experts.{}.", prefix, e);
    at.gate_up.push_back(add.matrix(expert + "gate_proj.weight", d.width, d.hidden));
    add.matrix(expert + "up_proj.weight", d.width, d.hidden);
    at.down.push_back(add.matrix(expert + "down_proj.weight", d.hidden, d.width, output_scale));
  }
  return at;
}

// Throws Error for experts and routers that only inference computes.
void refuse_untrained(const ExpertsConfig& e) {
  const auto refuse = [](const char* key, const auto& value, const auto& trained) {
    if (value != trained) fail("{}: training expects {}, got {}", key, trained, value);
  };
  const RouterConfig &r = *e.router, trained = {};
  refuse("router.score", std::string_view(to_string(r.score)), std::string_view(to_string(trained.score)));
  refuse("router.selection_bias", r.selection_bias, trained.selection_bias);
  refuse("router.topk_group", r.top_groups, r.groups);
  refuse("router.top_p", r.top_p, trained.top_p);
  refuse("router.scale", r.scale, trained.scale);
  refuse("num_shared_experts", e.shared, 0);
  refuse("constant_experts", e.constant, 0);
  refuse("copy_experts", e.copy, 0);
  refuse("zero_experts", e.zero, 0);
  refuse("expert_storage", std::string_view(to_string(e.storage)), std::string_view(to_string(ExpertStorage::kOwn)));
  refuse("experts_of_layer", e.of_layer, -1);
}

}  // namespace

Dims::Dims(const ModelConfig& config)
    : hidden(config.hidden_size),
      layers(config.num_layers()),
      heads(config.heads().query_heads),
      kv_heads(config.heads().kv_heads),
      head_dim(config.heads().key_width),
      vocab(config.vocab_size),
      experts(config.experts(0).count),
      top_k(config.experts(0).per_token),
      width(config.experts(0).width),
      groups(config.expert_groups),
      streams(config.federated() ? config.expert_groups : 1),
      qkv((heads + 2 * kv_heads) * head_dim) {}

Layout::Layout(const ModelConfig& model, const InitScales& scales) : config(model), dims(model) {
  validate(model);
  if (model.dense()) fail("num_experts: training expects at least 1 expert, got a dense model (num_experts = 0)");
  for_each_experts(model, refuse_untrained);
  const double output_scale = scales.output / std::sqrt(2.0 * dims.layers);
  Builder add(*this);
  embedding = head = add.matrix("model.embed_tokens.weight", dims.vocab, dims.hidden, scales.embedding);
  for (int l = 0; l < dims.layers; ++l) layers.push_back(add_layer(add, config, dims, l, output_scale));
  final_norm = add.norm("model.norm.weight", dims.hidden);
  if (!model.tie_word_embeddings) head = add.matrix("lm_head.weight", dims.vocab, dims.hidden);
}

template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params) {
  std::fill_n(params, layout.size, T{0});
  std::uint64_t stream = 0;
  for (const TensorSlot& tensor : layout.tensors) {
    const std::uint64_t tensor_seed = random_bits(seed, stream++);
    T* out = params + tensor.offset;
    for (std::size_t i = 0; i < tensor.size; ++i)
      out[i] = tensor.decay ? static_cast<T>(tensor.init_std * random_normal(tensor_seed, i)) : T{1};
  }
}

template void initialise(const Layout&, std::uint64_t, float*);
template void initialise(const Layout&, std::uint64_t, double*);

}  // namespace foe::train
