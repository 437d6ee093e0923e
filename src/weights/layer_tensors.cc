#include "weights/layer_tensors.h"

#include <cstdint>
#include <string>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

// Throws Error if the projection has a bias: foe does not add biases, and without them the answers would be wrong.
Tensor linear(const TensorFolder& folder, const std::string& name, std::int64_t out, std::int64_t in) {
  if (folder.contains(name + ".bias"))
    fail("{}: expected {} without a bias, got {}.bias", folder.model_dir(), name, name);
  return folder.tensor(name + ".weight", {out, in});
}

// Returns slice `index` of `count` experts' hidden units of one network.
ExpertTensors slice_of_network(const TensorFolder& folder, const std::string& parent, int index, int count,
                               std::int64_t D, int F) {
  const auto units = [&](const char* name) {
    return rows(linear(folder, parent + name, std::int64_t{count} * F, D), std::int64_t{index} * F,
                std::int64_t{index + 1} * F);
  };
  return {units("gate_proj"), units("up_proj"), linear(folder, parent + "down_proj", D, std::int64_t{count} * F),
          index * F};
}

}  // namespace

std::string layer_prefix(const ModelConfig& config, int layer) {
  FOE_CHECK(layer >= 0 && layer < config.num_layers(), "layer {} of {}", layer, config.num_layers());
  return fmt::format("model.layers.{}.", layer);
}

LayerTensors layer_tensors(const TensorFolder& folder, const ModelConfig& config, int layer) {
  const std::string prefix = layer_prefix(config, layer);
  const std::string attention = prefix + "self_attn.";
  const std::int64_t D = config.hidden_size, C = config.heads().key_width;
  const std::int64_t q_width = config.heads().query_heads * C, kv_width = config.heads().kv_heads * C;

  LayerTensors tensors;
  tensors.input_norm = folder.tensor(prefix + "input_layernorm.weight", {D});
  if (config.heads().qk_norm != QkNorm::kNone) {
    const bool full = config.heads().qk_norm == QkNorm::kFull;
    tensors.q_norm = folder.tensor(attention + "q_norm.weight", {full ? q_width : C});
    tensors.k_norm = folder.tensor(attention + "k_norm.weight", {full ? kv_width : C});
  } else if (folder.contains(attention + "q_norm.weight")) {
    fail("{}: expected no {}q_norm.weight (qk_norm is \"none\"), got one", folder.model_dir(), attention);
  }
  tensors.post_attention_norm = folder.tensor(prefix + "post_attention_layernorm.weight", {D});
  if (!config.dense()) {
    const std::string mixtral = prefix + "block_sparse_moe.gate";
    const bool is_mixtral = folder.contains(mixtral + ".weight");
    const ExpertTable table = expert_table(config, layer);
    tensors.router = linear(folder, is_mixtral ? mixtral : prefix + "mlp.gate", table.scored(), D);
    if (config.experts(layer).router->selection_bias)
      tensors.selection_bias = folder.tensor(prefix + "mlp.gate.e_score_correction_bias", {table.scored()});
    if (table.constant > 0) {
      tensors.constant_gates = folder.tensor(prefix + "mlp.constant_experts.gates", {2 * table.constant, D});
      tensors.constants = folder.tensor(prefix + "mlp.constant_experts.vectors", {table.constant, D});
    }
    if (table.shared_gate) tensors.shared_gate = linear(folder, prefix + "mlp.shared_expert_gate", 1, D);
  }
  return tensors;
}

AttentionTensors attention_tensors(const TensorFolder& folder, const ModelConfig& config, int layer) {
  const std::string attention = layer_prefix(config, layer) + "self_attn.";
  const std::int64_t D = config.hidden_size, C = config.heads().key_width;
  const std::int64_t q_width = config.heads().query_heads * C, kv_width = config.heads().kv_heads * C;
  return {linear(folder, attention + "q_proj", q_width, D), linear(folder, attention + "k_proj", kv_width, D),
          linear(folder, attention + "v_proj", kv_width, D), linear(folder, attention + "o_proj", D, q_width)};
}

ExpertTensors expert_tensors(const TensorFolder& folder, const ModelConfig& config, int layer, int expert) {
  const ExpertTable table = expert_table(config, layer);
  FOE_CHECK(expert >= 0 && expert < table.with_rows(), "expert {} of {}", expert, table.with_rows());
  const std::string prefix = layer_prefix(config, layer);
  const std::int64_t D = config.hidden_size, E = config.experts(layer).count, F = config.experts(layer).width;
  const auto separate = [&](const std::string& parent, const char* gate, const char* up, const char* down) {
    return ExpertTensors{linear(folder, parent + gate, F, D), linear(folder, parent + up, F, D),
                         linear(folder, parent + down, D, F)};
  };
  if (config.dense()) return separate(prefix + "mlp.", "gate_proj", "up_proj", "down_proj");
  if (table.kind_of(expert) == ExpertKind::kShared)
    return slice_of_network(folder, prefix + "mlp.shared_experts.", table.shared_index(expert), table.shared, D,
                            static_cast<int>(F));
  expert = table.routed_index(expert);
  if (config.experts(layer).storage == ExpertStorage::kSlices)
    return slice_of_network(folder, prefix + "mlp.", expert, table.routed, D, static_cast<int>(F));

  const std::string fused = prefix + "mlp.experts.gate_up_proj";
  if (folder.contains(fused)) {
    const Tensor gate_up = slice(folder.tensor(fused, {E, 2 * F, D}), expert);
    const Tensor down = slice(folder.tensor(prefix + "mlp.experts.down_proj", {E, D, F}), expert);
    return {rows(gate_up, 0, F), rows(gate_up, F, 2 * F), down};
  }
  const std::string mixtral = fmt::format("{}block_sparse_moe.experts.{}.", prefix, expert);
  if (folder.contains(mixtral + "w1.weight")) return separate(mixtral, "w1", "w3", "w2");
  return separate(fmt::format("{}mlp.experts.{}.", prefix, expert), "gate_proj", "up_proj", "down_proj");
}

EndTensors end_tensors(const TensorFolder& folder, const ModelConfig& config) {
  const std::int64_t D = config.hidden_size, V = config.vocab_size;
  return {folder.tensor("model.embed_tokens.weight", {V, D}), folder.tensor("model.norm.weight", {D})};
}

Tensor head_tensor(const TensorFolder& folder, const ModelConfig& config) {
  if (config.tie_word_embeddings) return end_tensors(folder, config).embed;
  return linear(folder, "lm_head", config.vocab_size, config.hidden_size);
}

}  // namespace foe
