#include "core/model_config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

// The limits of sizes: powers of two that are well above every published model, and so small that the largest product
// that is ever computed, the bytes of all experts' weights (4 * L * E * 3 * F * D < 2^62), fits into a signed 64-bit
// integer.
constexpr int kMaxHidden = 1 << 16;
constexpr int kMaxLayers = 1 << 10;
constexpr int kMaxHeads = 1 << 10;
constexpr int kMaxHeadDim = 1 << 10;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxExperts = 1 << 14;
constexpr int kMaxExpertWidth = 1 << 18;
constexpr int kMaxPositions = 1 << 27;

void check_range(const std::string& key, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) fail("{}: expected an integer from {} to {}, got {}", key, low, high, value);
}

void check_positive(const std::string& key, double value) {
  if (!(value > 0) || !std::isfinite(value)) fail("{}: expected a finite number above 0, got {}", key, value);
}

void check_at_least(const std::string& key, double value, double low) {
  if (!(value >= low) || !std::isfinite(value))
    fail("{}: expected a finite number of at least {}, got {}", key, low, value);
}

// Throws Error unless `groups`, which must be positive, divides a value.
void check_groups_divide(int groups, const std::string& key, int value) {
  if (value % groups != 0) fail("expert_groups: expected a divisor of {} = {}, got {}", key, value, groups);
}

// A layer, or one of its blocks, and what is before the names of its keys in messages.
struct Layer {
  const ModelConfig& config;
  int index;
  std::string prefix;

  std::string key(const char* name) const { return prefix + name; }
  // Nothing is before the keys where all layers are alike.
  Layer in(const char* path) const { return {config, index, prefix.empty() ? "" : prefix + path}; }
};

// A factor, which is also to be one in f32, as must be its products with what it multiplies.
void check_factor(const std::string& key, double value) {
  constexpr double kMost = 1e6;
  if (!(value >= 1 / kMost && value <= kMost))
    fail("{}: expected a number from {} to {}, got {}", key, 1 / kMost, kMost, value);
}

// What is described and not computed.
template <typename T>
void refuse_other(const std::string& key, const T& value, const T& computed) {
  if (value != computed) fail("{}: expected {} (nothing else is computed), got {}", key, computed, value);
}

void check_rotation(const Layer& layer, const AttentionConfig& a) {
  if (!(a.rotary_share >= 0 && a.rotary_share <= 1))
    fail("{}: expected a number from 0 to 1, got {}", layer.key("partial_rotary_factor"), a.rotary_share);
  if (a.rotary_width() % 2 != 0)
    fail("{}: expected an even width (RoPE rotates pairs), got {} of head_dim = {}, which is {}",
         layer.key("partial_rotary_factor"), a.rotary_share, a.key_width, a.rotary_width());
  check_positive(layer.key("rope_theta"), a.rope_theta);
  check_at_least(layer.key("rope_scaling.factor"), a.rope_factor, 1);
  if (a.rope_factor != 1 && a.rope_scaling.type != RopeType::kDefault)
    fail("{}: expected linear alone with a factor of positions = {}, got {}", layer.key("rope_scaling.rope_type"),
         a.rope_factor, to_string(a.rope_scaling.type));
  if (a.rotary_width() > 0) validate(a.rope_scaling, a.rope_theta, a.rotary_width(), layer.key("rope_scaling."));
  if (a.norm_after_rope && a.qk_norm == QkNorm::kNone)
    fail("{}: expected false without a QK norm (qk_norm none), got true", layer.key("qk_norm_after_rope"));
}

void check_attention(const Layer& layer) {
  const AttentionConfig &a = layer.config.attention(layer.index), &first = layer.config.heads();
  check_range(layer.key("num_attention_heads"), a.query_heads, 1, kMaxHeads);
  check_range(layer.key("num_key_value_heads"), a.kv_heads, 1, kMaxHeads);
  if (a.query_heads % a.kv_heads != 0)
    fail("{}: expected a multiple of num_key_value_heads = {}, got {}", layer.key("num_attention_heads"), a.kv_heads,
         a.query_heads);
  check_range(layer.key("head_dim"), a.key_width, 1, kMaxHeadDim);
  if (a.key_width % 2 != 0)
    fail("{}: expected an even number (RoPE rotates pairs), got {}", layer.key("head_dim"), a.key_width);
  check_range(layer.key("v_head_dim"), a.head_value_width(), 1, kMaxHeadDim);
  check_range(layer.key("sliding_window"), a.window, 0, kMaxPositions);
  check_at_least(layer.key("attention_scale"), a.scale, 0);
  check_at_least(layer.key("attn_logit_softcapping"), a.softcap, 0);
  check_rotation(layer, a);
  if (a.query_heads != first.query_heads || a.kv_heads != first.kv_heads || a.key_width != first.key_width ||
      a.head_value_width() != first.head_value_width())
    fail("{}: expected {} query and {} KV heads of widths {} and {} as in the first layer, got {}, {}, {} and {}",
         layer.key("num_attention_heads"), first.query_heads, first.kv_heads, first.key_width, first.head_value_width(),
         a.query_heads, a.kv_heads, a.key_width, a.head_value_width());
}

void refuse_other_attention(const Layer& layer) {
  const AttentionConfig &a = layer.config.attention(layer.index), &first = layer.config.heads();
  refuse_other<std::string_view>(layer.key("attention_kind"), to_string(a.kind), to_string(AttentionKind::kGrouped));
  refuse_other<std::string_view>(layer.key("qk_norm"), to_string(a.qk_norm), to_string(first.qk_norm));
}

void check_layer_of_experts(const Layer& layer) {
  const ExpertsConfig& e = layer.config.experts(layer.index);
  if (e.of_layer == -1) return;
  if (e.of_layer < 0 || e.of_layer >= layer.index)
    fail("{}: expected null or the index of a layer below layer {}, got {}", layer.key("experts_of_layer"), layer.index,
         e.of_layer);
  const ExpertsConfig& owner = layer.config.experts(e.of_layer);
  if (owner.dense() || owner.of_layer != -1 || owner.count != e.count || owner.shared != e.shared ||
      owner.width != e.width || owner.storage != e.storage || owner.bias != e.bias)
    fail(
        "{}: expected a layer with {} experts of width {} of its own, {} shared ones, the same storage and mlp_bias, "
        "got {}",
        layer.key("experts_of_layer"), e.count, e.width, e.shared, e.of_layer);
}

// What is between a network's products, and its biases.
void check_network(const Layer& layer) {
  const ExpertsConfig& e = layer.config.experts(layer.index);
  check_factor(layer.key("swiglu_alpha"), e.gate.alpha);
  if (e.gate.alpha != 1 && e.activation != Activation::kSilu)
    fail("{}: expected 1 with hidden_act = {}, got {}", layer.key("swiglu_alpha"), to_string(e.activation),
         e.gate.alpha);
  if (e.gate.limit != 0) check_factor(layer.key("swiglu_limit"), e.gate.limit);
  if (e.gate.up_offset != 0) check_factor(layer.key("up_offset"), std::abs(e.gate.up_offset));
  // The slices of one network would share the bias of its down projection, of which only one may add it.
  if (e.bias && (e.shared > 0 || e.storage != ExpertStorage::kOwn))
    fail("{}: expected false with shared experts or expert_storage = \"slices\", got true", layer.key("mlp_bias"));
}

void check_experts(const Layer& layer) {
  const ExpertsConfig& e = layer.config.experts(layer.index);
  check_network(layer);
  check_range(layer.key(e.dense() ? "intermediate_size" : "moe_intermediate_size"), e.width, 1, kMaxExpertWidth);
  if (e.dense()) {
    check_range(layer.key("num_experts (without a router)"), e.count, 1, 1);
    check_range(layer.key("num_experts_per_tok (of a dense model)"), e.per_token, 1, 1);
    ExpertsConfig dense = dense_experts(e.width, e.activation);
    dense.gate = e.gate;
    dense.bias = e.bias;
    if (e != dense)
      fail("{}: expected a router, or no key of experts but the width, got none and such keys", layer.key("router"));
    if (layer.config.federated() && !layer.config.dense())
      fail("{}: expected at least 1 in every layer of a federated model, got 0", layer.key("num_experts"));
    return;
  }
  const int H = layer.config.expert_groups;
  const auto check_count = [&](const char* name, int count, int least) {
    check_range(layer.key(name), count, least, kMaxExperts);
    check_groups_divide(H, layer.key(name), count);
  };
  check_count("num_experts", e.count, 1);
  check_count("num_shared_experts", e.shared, 0);
  check_range(layer.key("shared_intermediate_size"), e.shared_width, 0, kMaxExpertWidth);
  if (e.shared_width > 0 && e.shared == 0)
    fail("{}: expected 0 without shared experts, got {}", layer.key("shared_intermediate_size"), e.shared_width);
  check_count("constant_experts", e.constant, 0);
  check_count("copy_experts", e.copy, 0);
  check_count("zero_experts", e.zero, 0);
  const int scored = e.count + e.constant + e.copy + e.zero;
  check_range(layer.key("num_experts_per_tok"), e.per_token, 1, scored);
  if (!e.router->across_groups) check_groups_divide(H, layer.key("num_experts_per_tok"), e.per_token);
  if (e.router->across_groups && scored != e.count)
    fail("{}: expected false with constant, copy or zero experts, got true", layer.key("router.across_groups"));
  if (e.shared_gate && e.shared == 0)
    fail("{}: expected false without shared experts, got true", layer.key("shared_gate"));
  validate(*e.router, scored, e.per_token, H, layer.key("router."));
  check_layer_of_experts(layer);
}

// Layers are attention and then experts.
void check_blocks(const Layer& layer) {
  const std::vector<BlockConfig>& blocks = layer.config.layers[layer.index].blocks;
  if (blocks.size() != 2 || !std::holds_alternative<AttentionConfig>(blocks[0].computes) ||
      !std::holds_alternative<ExpertsConfig>(blocks[1].computes))
    fail("{}: expected attention and then experts, got {} blocks", layer.key("blocks"), blocks.size());
}

// What a group adds in a layer that does not sync is read by the group's next block.
void check_synced(const Layer& layer) {
  if (layer.config.group_sync_every > 1)
    fail("{}: expected false with group_sync_every = {}, got true", layer.key("parallel"),
         layer.config.group_sync_every);
}

void check_attention_block(const Layer& layer) {
  const BlockConfig& block = layer.config.attention_block(layer.index);
  check_factor(layer.key("residual_factor"), block.residual_factor);
  if (block.parallel && layer.index == 0)
    fail("{}: expected false in the first block of the first layer, got true", layer.key("parallel"));
  if (block.parallel && !layer.config.federated())
    fail("{}: expected false for attention without a federation (residual = \"federated\"), got true",
         layer.key("parallel"));
  if (block.parallel) check_synced(layer);
  if (block.norm == BlockNorm::kShared)
    fail("{}: expected before, after or both in the first block of a layer, got shared", layer.key("norm"));
  if (layer.config.federated() && block.residual_factor != 1 && layer.config.attention(layer.index).output_bias)
    fail("{}: expected 1 for attention with an output bias in a federated model, got {}", layer.key("residual_factor"),
         block.residual_factor);
  // All groups' outputs are in one sum with their updates, and each of them is on its own rank.
  if (layer.config.federated() && block.norm != BlockNorm::kBefore)
    fail("{}: expected before for the attention of a federated model, got {}", layer.key("norm"),
         to_string(block.norm));
}

// Only one update of a group can wait for a sum.
void check_federated_order(const Layer& layer) {
  const ModelConfig& config = layer.config;
  const bool parallel = config.experts_block(layer.index).parallel;
  if (const bool first = config.experts_block(0).parallel; parallel != first)
    fail("{}: expected {} as in the first layer of a federated model, got {}", layer.key("parallel"), first, parallel);
  if (parallel && config.attention_block(layer.index).parallel)
    fail("{}: expected false behind a parallel block of a federated model, got true", layer.key("parallel"));
  if (parallel) check_synced(layer);
}

void check_experts_block(const Layer& layer) {
  const BlockConfig& block = layer.config.experts_block(layer.index);
  check_factor(layer.key("residual_factor"), block.residual_factor);
  if (layer.config.federated()) check_federated_order(layer);
  if (block.norm != BlockNorm::kShared) return;
  if (!block.parallel)
    fail("{}: expected before, after or both in a block that is not parallel, got shared", layer.key("norm"));
  if (layer.config.attention_block(layer.index).norm == BlockNorm::kAfter)
    fail("{}: expected before, after or both behind attention that has no norm before it, got shared",
         layer.key("norm"));
}

void check_attention_of(const Layer& layer) {
  check_attention_block(layer.in("blocks[0]."));
  check_attention(layer.in("blocks[0].attention."));
  refuse_other_attention(layer.in("blocks[0].attention."));
}

void check_experts_of(const Layer& layer) {
  check_experts_block(layer.in("blocks[1]."));
  check_experts(layer.in("blocks[1].experts."));
}

void check_groups(const ModelConfig& config) {
  check_range("group_sync_every", config.group_sync_every, 1, kMaxLayers);
  if (config.group_sync_every > 1 && config.residual != Residual::kFederated)
    fail("group_sync_every: expected 1 without residual = \"federated\", got {}", config.group_sync_every);
  if (!config.dense()) return check_groups_divide(config.expert_groups, "num_key_value_heads", config.heads().kv_heads);
  if (config.expert_groups != 1)
    fail("expert_groups: expected 1 in a dense model (num_experts = 0), got {}", config.expert_groups);
}

void check_layers(const ModelConfig& config) {
  check_range("num_hidden_layers", config.num_layers(), 1, kMaxLayers);
  const bool alike = std::ranges::all_of(config.layers, [&](const LayerConfig& l) { return l == config.layers[0]; });
  const auto for_each_layer = [&](auto&& check) {
    for (int l = 0; l < config.num_layers(); ++l) check(Layer{config, l, alike ? "" : fmt::format("layers[{}].", l)});
  };
  check_range("expert_groups", config.expert_groups, 1, kMaxHeads);
  for_each_layer(check_blocks);
  for_each_layer(check_attention_of);
  check_groups(config);
  for_each_layer(check_experts_of);
}

template <typename Computes, typename Layers>
auto& find_block(Layers& layers, int layer) {
  FOE_CHECK(layer >= 0 && layer < static_cast<int>(layers.size()), "layer {} of {}", layer, layers.size());
  for (auto& block : layers[layer].blocks)
    if (std::holds_alternative<Computes>(block.computes)) return block;
  FOE_CHECK(false, "layer {} has no such block", layer);
  std::abort();
}

}  // namespace

void validate(const ModelConfig& config) {
  check_range("hidden_size", config.hidden_size, 1, kMaxHidden);
  check_range("vocab_size", config.vocab_size, 1, kMaxVocab);
  check_range("max_position_embeddings", config.max_position_embeddings, 1, kMaxPositions);
  check_positive("rms_norm_eps", config.rms_norm_eps);
  if (config.norm_offset != 0 && config.norm_offset != 1)
    fail("norm_offset: expected 0 or 1, got {}", config.norm_offset);
  check_factor("embedding_factor", config.embedding_factor);
  check_factor("logit_factor", config.logit_factor);
  if (config.logit_softcap != 0) check_factor("logit_softcap", config.logit_softcap);
  check_layers(config);
  // Not held to the vocabulary: small test models keep the end token of the family they imitate, and never emit it.
  constexpr std::int64_t kMaxToken = std::numeric_limits<std::int32_t>::max();
  for (const std::int32_t token : config.eos_token_ids) check_range("eos_token_id", token, 0, kMaxToken);
  if (config.bos_token_id) check_range("bos_token_id", *config.bos_token_id, 0, kMaxToken);
}

void validate_layer(const ModelConfig& config, int index, const std::string& prefix) {
  check_range("expert_groups", config.expert_groups, 1, kMaxHeads);
  const Layer layer{config, index, prefix};
  check_blocks(layer);
  check_attention_of(layer);
  check_experts_of(layer);
}

const AttentionConfig& ModelConfig::attention(int layer) const {
  return std::get<AttentionConfig>(find_block<AttentionConfig>(layers, layer).computes);
}

const ExpertsConfig& ModelConfig::experts(int layer) const {
  return std::get<ExpertsConfig>(find_block<ExpertsConfig>(layers, layer).computes);
}

AttentionConfig& ModelConfig::attention(int layer) {
  return std::get<AttentionConfig>(find_block<AttentionConfig>(layers, layer).computes);
}

ExpertsConfig& ModelConfig::experts(int layer) {
  return std::get<ExpertsConfig>(find_block<ExpertsConfig>(layers, layer).computes);
}

const BlockConfig& ModelConfig::attention_block(int layer) const {
  return find_block<AttentionConfig>(layers, layer);
}

const BlockConfig& ModelConfig::experts_block(int layer) const {
  return find_block<ExpertsConfig>(layers, layer);
}

int ModelConfig::group_sums() const {
  if (!federated()) return 0;
  int sums = has_pending_updates(num_layers()) ? 1 : 0;
  for (int l = 0; l < num_layers(); ++l) sums += syncs(l) ? 1 : 0;
  return sums;
}

bool ModelConfig::dense() const {
  bool dense = true;
  for_each_experts(*this, [&](const ExpertsConfig& experts) { dense = dense && experts.dense(); });
  return dense;
}

int alike_positions(const ModelConfig& config) {
  int positions = 0;
  for_each_attention(config, [&](const AttentionConfig& attention) {
    const RopeScaling& scaling = attention.rope_scaling;
    if (attention.rotary_width() > 0 && scaling.by_length())
      positions = positions == 0 ? scaling.original_positions : std::min(positions, scaling.original_positions);
  });
  return positions;
}

ExpertTable expert_table(const ModelConfig& config, int layer) {
  const ExpertsConfig& experts = config.experts(layer);
  if (experts.dense()) return {.shared = 1};
  return {.groups = config.expert_groups,
          .routed = experts.count,
          .shared = experts.shared,
          .constant = experts.constant,
          .copy = experts.copy,
          .zero = experts.zero,
          .shared_gate = experts.shared_gate};
}

int expert_width(const ModelConfig& config, int layer, int id) {
  const ExpertsConfig& experts = config.experts(layer);
  const bool shared = !experts.dense() && expert_table(config, layer).kind_of(id) == ExpertKind::kShared;
  return shared ? experts.width_of_shared() : experts.width;
}

int most_summed_entries(const ModelConfig& config, int layer) {
  const ExpertsConfig& experts = config.experts(layer);
  const int parts = config.federated() ? config.expert_groups : 1;
  const int routed = experts.router && experts.router->across_groups
                         ? std::min(experts.per_token, experts.count / parts)
                         : std::min(experts.per_token, experts.count) / parts;
  return routed + experts.shared / parts;
}

int most_entries(const ModelConfig& config, int layer) {
  const ExpertsConfig& experts = config.experts(layer);
  return experts.dense() ? 1 : experts.per_token + experts.shared;
}

int most_entries(const ModelConfig& config) {
  int most = 0;
  for (int layer = 0; layer < config.num_layers(); ++layer) most = std::max(most, most_entries(config, layer));
  return most;
}

std::vector<LayerConfig> uniform_layers(int count, const AttentionConfig& attention, const ExpertsConfig& experts) {
  check_range("num_hidden_layers", count, 1, kMaxLayers);
  const LayerConfig layer{{{.computes = attention}, {.computes = experts}}};
  return std::vector<LayerConfig>(count, layer);
}

void set_layers(ModelConfig& config, int count) {
  check_range("num_hidden_layers", count, 1, kMaxLayers);
  const std::size_t period = config.layers.size();
  for (std::size_t l = period; l < static_cast<std::size_t>(count); ++l)
    config.layers.push_back(LayerConfig(config.layers[l - period]));
  config.layers.resize(count);
}

ExpertsConfig dense_experts(int width, Activation activation) {
  return {.count = 1, .per_token = 1, .width = width, .activation = activation};
}

}  // namespace foe
