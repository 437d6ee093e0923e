#include "train/layout.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/rng.h"
#include "core/model_tensors.h"
#include "kernels/rows/rows.h"
#include "kernels/rows/select.h"

namespace foe::train {
namespace {

constexpr double kInitStd = 0.02;

constexpr std::pair<TensorRole, std::size_t LayerOffsets::*> kOffsets[] = {
    {TensorRole::kAttentionNorm, &LayerOffsets::input_norm},
    {TensorRole::kQProj, &LayerOffsets::q},
    {TensorRole::kKProj, &LayerOffsets::k},
    {TensorRole::kVProj, &LayerOffsets::v},
    {TensorRole::kOProj, &LayerOffsets::o},
    {TensorRole::kQNorm, &LayerOffsets::q_norm},
    {TensorRole::kKNorm, &LayerOffsets::k_norm},
    {TensorRole::kExpertNorm, &LayerOffsets::post_norm},
    {TensorRole::kRouter, &LayerOffsets::router},
};

class Builder {
 public:
  Builder(Layout& layout, const InitScales& scales) : layout_(layout), scales_(scales) {}

  void add(const ModelTensor& row, int index) {
    const bool matrix = row.initial == InitialValues::kRandom;
    const auto size = static_cast<std::size_t>(row.size());
    const std::size_t offset = layout_.size;
    layout_.tensors.push_back(
        {.name = name_of(row, index),
         .shape = row.shape,
         .offset = offset,
         .size = size,
         .init_std = matrix ? kInitStd * scale_of(row.role) : 0,
         .decay = matrix,
         .stage = stage_of(row),
         .parts = parts_of(row),
         .columns = row.split == TensorSplit::kHeadColumns ? row.columns() : 0,
         .gradient = gradient_of(row),
         .stream = row.count > 1 ? layout_.dims.stream_of(index) : 0,
         .everywhere = gradient_of(row) != GradientOf::kStream || row.role == TensorRole::kRouter});
    layout_.size += padded(size);
    offset_of(row) = offset;
  }

 private:
  double scale_of(TensorRole role) const {
    if (role == TensorRole::kEmbedding) return scales_.embedding;
    const bool output = role == TensorRole::kOProj || role == TensorRole::kDownProj;
    return output ? scales_.output / std::sqrt(2.0 * layout_.dims.layers) : 1;
  }

  int parts_of(const ModelTensor& row) const {
    const bool heads = row.split == TensorSplit::kHeadRows || row.split == TensorSplit::kHeadColumns;
    return heads || row.role == TensorRole::kRouter ? layout_.dims.streams : 1;
  }

  static GradientOf gradient_of(const ModelTensor& row) {
    if (row.layer < 0) return GradientOf::kEnds;
    const bool norm = row.initial != InitialValues::kRandom;
    return norm && row.split == TensorSplit::kWhole ? GradientOf::kAll : GradientOf::kStream;
  }

  int stage_of(const ModelTensor& row) const {
    const int layers = layout_.dims.layers;
    if (row.role == TensorRole::kEmbedding) return Stages::of_embedding(layers);
    return row.layer < 0 ? 0 : Stages::of_layer(row.layer, layers);
  }

  std::size_t& offset_of(const ModelTensor& row) {
    if (row.role == TensorRole::kEmbedding) return layout_.embedding;
    if (row.role == TensorRole::kFinalNorm) return layout_.final_norm;
    if (row.role == TensorRole::kHead) return layout_.head;
    LayerOffsets& at = layout_.layers[row.layer];
    if (row.role == TensorRole::kGateProj) return at.gate_up.emplace_back();
    if (row.role == TensorRole::kUpProj) return behind_gate_;
    if (row.role == TensorRole::kDownProj) return at.down.emplace_back();
    for (const auto& [role, offset] : kOffsets)
      if (role == row.role) return at.*offset;
    fail("{}: training expects a model without such tensors", row.name);
  }

  Layout& layout_;
  InitScales scales_;
  std::size_t behind_gate_ = 0;
};

template <typename T>
void refuse(std::string_view key, const T& value, const std::type_identity_t<T>& trained) {
  if (value != trained) fail("{}: training expects {}, got {}", key, trained, value);
}

// Throws Error for attention that only inference computes. All layers rotate as the first one does.
void refuse_untrained_attention(const ModelConfig& config) {
  for (int l = 0; l < config.num_layers(); ++l) {
    const AttentionConfig &a = config.attention(l), &first = config.heads();
    refuse("v_head_dim", a.head_value_width(), a.key_width);
    refuse("qkv_bias", a.qkv_bias, false);
    refuse("output_bias", a.output_bias, false);
    refuse("qk_norm_after_rope", a.norm_after_rope, false);
    refuse("sliding_window", a.window, 0);
    refuse("sinks", a.sinks, false);
    refuse("partial_rotary_factor", a.rotary_share, 1.0);
    refuse("rope_interleaved", a.interleaved, false);
    refuse(fmt::format("layers[{}].rope_theta", l), a.rope_theta, first.rope_theta);
    refuse(fmt::format("layers[{}].rope_scaling.factor", l), a.rope_factor, first.rope_factor);
    refuse<std::string_view>("rope_scaling.rope_type", to_string(a.rope_scaling.type), to_string(RopeType::kDefault));
    if (a.scale != 1 / std::sqrt(a.key_width)) refuse("attention_scale", a.scale, 0.0);
    refuse("attn_logit_softcapping", a.softcap, 0.0);
  }
}

// Throws Error for blocks that only inference computes: a parallel block must have a norm of its own.
void refuse_untrained(const BlockConfig& block) {
  refuse<std::string_view>("norm", to_string(block.norm), to_string(BlockNorm::kBefore));
}

// The same for experts and routers.
void refuse_untrained(const ExpertsConfig& e) {
  if (e.dense()) fail("num_experts: training expects at least 1 expert in every layer, got a dense layer");
  refuse<std::string_view>("hidden_act", to_string(e.activation), to_string(Activation::kSilu));
  refuse("swiglu_alpha", e.gate.alpha, 1);
  refuse("swiglu_limit", e.gate.limit, 0);
  refuse("up_offset", e.gate.up_offset, 0);
  refuse("mlp_bias", e.bias, false);
  const RouterConfig &r = *e.router, trained = {};
  refuse("router.score", std::string_view(to_string(r.score)), std::string_view(to_string(trained.score)));
  refuse("router.bias", r.bias, trained.bias);
  refuse("router.selection_bias", r.selection_bias, trained.selection_bias);
  refuse("router.topk_group", r.top_groups, r.groups);
  refuse("router.top_p", r.top_p, trained.top_p);
  refuse("router.norm_min", r.norm_min, trained.norm_min);
  refuse("router.scale", r.scale, trained.scale);
  refuse("num_shared_experts", e.shared, 0);
  refuse("constant_experts", e.constant, 0);
  refuse("copy_experts", e.copy, 0);
  refuse("zero_experts", e.zero, 0);
  refuse("expert_storage", std::string_view(to_string(e.storage)), std::string_view(to_string(ExpertStorage::kOwn)));
  refuse("experts_of_layer", e.of_layer, -1);
}

void refuse_untrained(const ModelConfig& model) {
  if (model.dense()) fail("num_experts: training expects at least 1 expert, got a dense model (num_experts = 0)");
  refuse("norm_offset", model.norm_offset, 0);
  refuse("embedding_factor", model.embedding_factor, 1);
  refuse("logit_factor", model.logit_factor, 1);
  refuse("logit_softcap", model.logit_softcap, 0);
  refuse_untrained_attention(model);
  for (const LayerConfig& layer : model.layers) {
    for (const BlockConfig& block : layer.blocks) refuse_untrained(block);
    refuse_untrained(std::get<ExpertsConfig>(layer.blocks[1].computes));
  }
  if (model.group_sync_every > 1) refuse("router.across_groups", model.experts(0).router->across_groups, false);
  if (const int summed = most_summed_entries(model, 0); summed > kMaxSummedRows)
    fail("num_experts_per_tok: expected at most {} that add to one sum, got {}", kMaxSummedRows, summed);
  for (int l = 1; l < model.num_layers(); ++l)
    for (std::size_t b = 0; b < model.layers[l].blocks.size(); ++b) {
      BlockConfig first = model.layers[0].blocks[b];
      first.residual_factor = model.layers[l].blocks[b].residual_factor;
      first.parallel = model.layers[l].blocks[b].parallel;
      if (model.layers[l].blocks[b] != first)
        fail(
            "layers: training expects layers that differ by residual_factor and parallel alone, got a layer {} unlike "
            "the first",
            l);
    }
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
      groups(selection(config, 0).expert_groups),
      streams(config.federated() ? config.expert_groups : 1),
      qkv((heads + 2 * kv_heads) * head_dim),
      all_streams(streams) {}

Dims::Dims(const ModelConfig& config, Range own) : Dims(config) {
  const auto part = [&](int& size) { size = size / all_streams * own.size(); };
  for (int* size : {&heads, &kv_heads, &qkv}) part(*size);
  streams = own.size();
  first_stream = own.begin;
}

Layout::Layout(const ModelConfig& model, const InitScales& scales) : config(model), dims(model) {
  validate(model);
  refuse_untrained(model);
  // gate and up must follow each other without padding, because they are multiplied in one product.
  if (dims.width * dims.hidden % 16 != 0)
    fail("moe_intermediate_size * hidden_size: expected a multiple of 16, got {}", dims.width * dims.hidden);
  layers.resize(dims.layers);
  Builder builder(*this, scales);
  for_each_tensor(TensorTable(model), [&](const ModelTensor& row, int index) { builder.add(row, index); });
  if (model.tie_word_embeddings) head = embedding;
}

namespace {

// Calls body(place in the layout, place in the row-major tensor) for each element of some parts.
template <typename Body>
void for_each_place(const TensorSlot& tensor, const Range& parts, Body&& body) {
  const std::size_t part_size = tensor.size / tensor.parts;
  const std::size_t width = tensor.columns > 0 ? tensor.columns / tensor.parts : part_size;
  const std::size_t stride = tensor.columns > 0 ? tensor.columns : 0, next = tensor.columns > 0 ? width : part_size;
  for (std::size_t i = parts.begin * part_size; i < parts.end * part_size; ++i) {
    const std::size_t part = i / part_size, in_part = i % part_size;
    body(i, part * next + in_part / width * stride + in_part % width);
  }
}

}  // namespace

template <typename T>
void copy_row_major(const TensorSlot& tensor, const T* params, T* out) {
  for_each_place(tensor, {0, tensor.parts},
                 [&](std::size_t from, std::size_t to) { out[to] = params[tensor.offset + from]; });
}

template <typename T>
void copy_from_row_major(const TensorSlot& tensor, const T* in, T* params) {
  for_each_place(tensor, {0, tensor.parts},
                 [&](std::size_t to, std::size_t from) { params[tensor.offset + to] = in[from]; });
}

template <typename T>
void initialise(const Layout& layout, std::uint64_t seed, T* params, Range streams) {
  std::uint64_t stream = 0;
  for (const TensorSlot& tensor : layout.tensors) {
    const std::uint64_t tensor_seed = random_bits(seed, stream++);
    T* out = params + tensor.offset;
    std::fill(out + tensor.size, out + padded(tensor.size), T{0});
    Range parts{0, tensor.parts};
    if (!tensor.everywhere)
      parts = {std::clamp(streams.begin - tensor.stream, 0, tensor.parts),
               std::clamp(streams.end - tensor.stream, 0, tensor.parts)};
    for_each_place(tensor, parts, [&](std::size_t to, std::size_t i) {
      out[to] = tensor.decay ? static_cast<T>(tensor.init_std * random_normal(tensor_seed, i)) : T{1};
    });
  }
}

template void copy_row_major(const TensorSlot&, const float*, float*);
template void copy_from_row_major(const TensorSlot&, const float*, float*);
template void initialise(const Layout&, std::uint64_t, float*, Range);
template void initialise(const Layout&, std::uint64_t, double*, Range);

}  // namespace foe::train
