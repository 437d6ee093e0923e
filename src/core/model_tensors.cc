#include "core/model_tensors.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"

namespace foe {
namespace {

using enum TensorRole;
using enum TensorSplit;

// Writes the rows of the model, or of one of its layers.
class Rows {
 public:
  Rows(std::vector<ModelTensor>& rows, const ModelConfig& config, int layer)
      : rows_(rows),
        config_(config),
        layer_(layer),
        D_(config.hidden_size),
        prefix_(layer < 0 ? "" : fmt::format("model.layers.{}.", layer)) {}

  ModelTensor& matrix(TensorRole role, const std::string& name, std::vector<std::int64_t> shape,
                      TensorSplit split = kWhole, TensorFormat format = TensorFormat::kF32) {
    rows_.push_back({.role = role,
                     .layer = layer_,
                     .shape = std::move(shape),
                     .split = split,
                     .format = format,
                     .name = prefix_ + name});
    return rows_.back();
  }
  void norm(TensorRole role, const char* name, std::int64_t width, TensorSplit split = kWhole) {
    matrix(role, name, {width}, split).initial = InitialValues::kOnes;
  }
  void bias(TensorRole role, const char* name, std::int64_t width, TensorSplit split = kWhole) {
    matrix(role, name, {width}, split).initial = InitialValues::kZeros;
  }

  void attention(const AttentionConfig& a, BlockNorm block_norm) {
    const std::int64_t N = a.query_heads, M = a.kv_heads, C = a.key_width, W = a.value_width > 0 ? a.value_width : C;
    if (reads_norm(block_norm)) norm(kAttentionNorm, "input_layernorm.weight", D_);
    matrix(kQProj, "self_attn.q_proj.weight", {N * C, D_}, kHeadRows, TensorFormat::kAttention);
    matrix(kKProj, "self_attn.k_proj.weight", {M * C, D_}, kHeadRows, TensorFormat::kAttention);
    matrix(kVProj, "self_attn.v_proj.weight", {M * W, D_}, kHeadRows, TensorFormat::kAttention);
    matrix(kOProj, "self_attn.o_proj.weight", {D_, N * W}, kHeadColumns, TensorFormat::kAttention);
    if (a.qkv_bias) {
      bias(kQBias, "self_attn.q_proj.bias", N * C, kHeadRows);
      bias(kKBias, "self_attn.k_proj.bias", M * C, kHeadRows);
      bias(kVBias, "self_attn.v_proj.bias", M * W, kHeadRows);
    }
    if (a.output_bias) bias(kOBias, "self_attn.o_proj.bias", D_);
    if (a.qk_norm != QkNorm::kNone) {
      const bool full = a.qk_norm == QkNorm::kFull;
      norm(kQNorm, "self_attn.q_norm.weight", full ? N * C : C, full ? kHeadRows : kWhole);
      norm(kKNorm, "self_attn.k_norm.weight", full ? M * C : C, full ? kHeadRows : kWhole);
    }
    if (a.sinks) bias(kSinks, "self_attn.sinks", N, kHeadRows);
    attention_writes_norm_ = writes_norm(block_norm);
    if (attention_writes_norm_) norm(kAttentionOutputNorm, "post_attention_layernorm.weight", D_);
  }

  void experts(const ExpertsConfig& e, BlockNorm block_norm) {
    // Llama's name for the norm before the experts is Gemma's for that after attention.
    if (reads_norm(block_norm))
      norm(kExpertNorm, attention_writes_norm_ ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
           D_);
    if (e.dense()) {
      network({kGateProj, kUpProj, kDownProj}, e.width, "mlp.", 1, 1);
      if (e.bias) biases(e.width, "mlp.", 1, 1);
    } else {
      const ExpertTable table = expert_table(config_, layer_);
      matrix(kRouter, "mlp.gate.weight", {table.scored(), D_});
      if (e.router->bias) bias(kRouterBias, "mlp.gate.bias", table.scored());
      if (e.router->selection_bias) bias(kSelectionBias, "mlp.gate.e_score_correction_bias", table.scored());
      if (e.constant > 0) {
        matrix(kConstantGates, "mlp.constant_experts.gates", {2 * std::int64_t{e.constant}, D_});
        matrix(kConstants, "mlp.constant_experts.vectors", {e.constant, D_});
      }
      if (e.shared_gate) matrix(kSharedGate, "mlp.shared_expert_gate.weight", {1, D_});
      const int own = e.of_layer < 0 ? e.count : 0, used = std::min(e.per_token, e.count);
      network({kGateProj, kUpProj, kDownProj}, e.width, "mlp.experts.{}.", own, used,
              e.storage == ExpertStorage::kSlices ? "mlp." : nullptr);
      if (e.bias) biases(e.width, "mlp.experts.{}.", own, used);
      if (e.shared > 0)
        network({kSharedGateProj, kSharedUpProj, kSharedDownProj}, e.width_of_shared(), "mlp.shared_experts.{}.",
                e.shared, e.shared, "mlp.shared_experts.");
    }
    if (writes_norm(block_norm)) norm(kExpertOutputNorm, "post_feedforward_layernorm.weight", D_);
  }

 private:
  struct NetworkRoles {
    TensorRole gate, up, down;
  };

  static bool reads_norm(BlockNorm norm) { return norm == BlockNorm::kBefore || norm == BlockNorm::kBoth; }
  static bool writes_norm(BlockNorm norm) { return norm == BlockNorm::kAfter || norm == BlockNorm::kBoth; }

  // Feed-forward networks with names that begin with `name`; if `slices_of` is not null they are slices of one.
  void network(const NetworkRoles& roles, std::int64_t width, const std::string& name, int count, int used,
               const char* slices_of = nullptr) {
    const auto add = [&](TensorRole role, const std::string& matrix_name, std::vector<std::int64_t> shape,
                         TensorSplit split) {
      ModelTensor& row = matrix(role, name + matrix_name, std::move(shape), split, TensorFormat::kExperts);
      row.count = count;
      row.used = used;
      if (slices_of) row.slices_of = prefix_ + slices_of + matrix_name;
    };
    add(roles.gate, "gate_proj.weight", {width, D_}, kExpertRows);
    add(roles.up, "up_proj.weight", {width, D_}, kExpertRows);
    add(roles.down, "down_proj.weight", {D_, width}, kExpertColumns);
  }

  // The biases of so many networks.
  void biases(std::int64_t width, const std::string& name, int count, int used) {
    const auto add = [&](TensorRole role, const char* of, std::int64_t size, TensorSplit split) {
      bias(role, (name + of).c_str(), size, split);
      rows_.back().count = count;
      rows_.back().used = used;
    };
    add(kGateBias, "gate_proj.bias", width, kExpertRows);
    add(kUpBias, "up_proj.bias", width, kExpertRows);
    add(kDownBias, "down_proj.bias", D_, kExpertWhole);
  }

  std::vector<ModelTensor>& rows_;
  const ModelConfig& config_;
  const int layer_;
  const std::int64_t D_;
  const std::string prefix_;
  bool attention_writes_norm_ = false;
};

// Returns the part of `size` that belongs to some of the heads.
Range of_heads(int size, int heads, Range own) {
  const int each = size / heads;
  return {own.begin * each, own.end * each};
}

bool is_shared(TensorRole role) {
  return role == kSharedGateProj || role == kSharedUpProj || role == kSharedDownProj;
}

// Returns how many of the experts with these ids have a tensor of the row.
int own_experts(const ModelTensor& tensor, const ModelConfig& config, Range ids) {
  if (config.experts(tensor.layer).dense()) return ids.size();
  const ExpertTable table = expert_table(config, tensor.layer);
  const ExpertKind kind = is_shared(tensor.role) ? ExpertKind::kShared : ExpertKind::kRouted;
  int count = 0;
  for (int id = ids.begin; id < ids.end; ++id) count += table.kind_of(id) == kind;
  return count;
}

// Returns the elements of so many tensors of each row.
std::int64_t sum_of_sizes(const ModelConfig& config, int ModelTensor::*count) {
  const TensorTable table(config);
  std::int64_t sum = 0;
  for (const ModelTensor& tensor : table.rows()) sum += tensor.*count * tensor.size();
  return sum;
}

}  // namespace

std::int64_t ModelTensor::size() const {
  std::int64_t size = 1;
  for (const std::int64_t n : shape) size *= n;
  return size;
}

std::string name_of(const ModelTensor& tensor, int index) {
  return fmt::format(fmt::runtime(tensor.name), index);
}

std::vector<std::int64_t> shape_of_all(const ModelTensor& tensor) {
  std::vector<std::int64_t> shape = tensor.shape;
  shape[tensor.split == kExpertColumns ? 1 : 0] *= tensor.count;
  return shape;
}

TensorTable::TensorTable(const ModelConfig& config) {
  const std::int64_t D = config.hidden_size, V = config.vocab_size;
  Rows model(rows_, config, -1);
  model.matrix(kEmbedding, "model.embed_tokens.weight", {V, D}, kWhole, TensorFormat::kFile);
  for (int l = 0; l < config.num_layers(); ++l) {
    first_L_.push_back(rows_.size());
    Rows layer(rows_, config, l);
    for (const BlockConfig& block : config.layers[l].blocks)
      if (const auto* attention = std::get_if<AttentionConfig>(&block.computes))
        layer.attention(*attention, block.norm);
      else
        layer.experts(std::get<ExpertsConfig>(block.computes), block.norm);
  }
  first_L_.push_back(rows_.size());
  model.norm(kFinalNorm, "model.norm.weight", D);
  ModelTensor& head = model.matrix(kHead, "lm_head.weight", {V, D}, kVocabulary, TensorFormat::kHead);
  head.count = head.used = config.tie_word_embeddings ? 0 : 1;
}

const ModelTensor* TensorTable::find(TensorRole role, int layer) const {
  const int layers = static_cast<int>(first_L_.size()) - 1;
  FOE_CHECK(layer >= -1 && layer < layers, "layer {} of {}", layer, layers);
  const auto in = [&](std::size_t begin, std::size_t end) -> const ModelTensor* {
    for (std::size_t i = begin; i < end; ++i)
      if (rows_[i].role == role) return &rows_[i];
    return nullptr;
  };
  if (layer >= 0) return in(first_L_[layer], first_L_[layer + 1]);
  return role == kEmbedding ? in(0, first_L_[0]) : in(first_L_.back(), rows_.size());
}

const ModelTensor& TensorTable::at(TensorRole role, int layer) const {
  const ModelTensor* row = find(role, layer);
  FOE_CHECK(row, "layer {} has no tensor with the role {}", layer, static_cast<int>(role));
  return *row;
}

ExpertMatrices expert_matrices(const TensorTable& table, const ModelConfig& config, int layer, int id) {
  const ExpertTable experts = expert_table(config, layer);
  FOE_CHECK(id >= 0 && id < experts.with_rows(), "expert {} of {}", id, experts.with_rows());
  const bool dense = config.experts(layer).dense();
  if (!dense && experts.kind_of(id) == ExpertKind::kShared)
    return {table.at(kSharedGateProj, layer), table.at(kSharedUpProj, layer), table.at(kSharedDownProj, layer),
            experts.shared_index(id)};
  return {table.at(kGateProj, layer),           table.at(kUpProj, layer),     table.at(kDownProj, layer),
          dense ? 0 : experts.routed_index(id), table.find(kGateBias, layer), table.find(kUpBias, layer),
          table.find(kDownBias, layer)};
}

Range own_units(int width, int layer, const ModelConfig& config, const Share& share) {
  return width == config.experts(layer).width ? share.expert_width(layer) : Range{0, width};
}

TensorPart part_of(const ModelTensor& tensor, const ModelConfig& config, const Share& share) {
  // What comes before the layers is of the first stage, and what comes behind them of the last one.
  const int layer = tensor.layer >= 0 ? tensor.layer : tensor.role == kEmbedding ? 0 : config.num_layers() - 1;
  if (!share.runs(layer)) return {{}, {}, 0};
  TensorPart part{{0, tensor.rows()}, {0, tensor.columns()}};
  switch (tensor.split) {
    case kWhole:
      break;
    case kHeadRows:
      part.rows = of_heads(tensor.rows(), config.attention(tensor.layer).kv_heads, share.kv_heads);
      break;
    case kHeadColumns:
      part.columns = of_heads(tensor.columns(), config.attention(tensor.layer).kv_heads, share.kv_heads);
      break;
    case kExpertRows:
      part.rows = own_units(tensor.rows(), tensor.layer, config, share);
      part.count = own_experts(tensor, config, share.experts(tensor.layer));
      break;
    case kExpertColumns:
      part.columns = own_units(tensor.columns(), tensor.layer, config, share);
      part.count = own_experts(tensor, config, share.experts(tensor.layer));
      break;
    case kExpertWhole:
      part.count = own_experts(tensor, config, share.experts(tensor.layer));
      break;
    case kVocabulary:
      part.rows = share.vocab;
      break;
  }
  return part;
}

std::int64_t parameter_count(const ModelConfig& config) {
  return sum_of_sizes(config, &ModelTensor::count);
}

std::int64_t active_parameter_count(const ModelConfig& config) {
  return sum_of_sizes(config, &ModelTensor::used);
}

const char* to_string(TensorSplit value) {
  switch (value) {
    case kWhole:
      return "whole";
    case kHeadRows:
      return "rows of heads";
    case kHeadColumns:
      return "columns of heads";
    case kExpertRows:
      return "experts, rows of width";
    case kExpertColumns:
      return "experts, columns of width";
    case kExpertWhole:
      return "experts, whole";
    case kVocabulary:
      return "vocabulary";
  }
  return "?";
}

const char* to_string(TensorFormat value) {
  switch (value) {
    case TensorFormat::kFile:
      return "as in the file";
    case TensorFormat::kF32:
      return "f32";
    case TensorFormat::kAttention:
      return "attention";
    case TensorFormat::kExperts:
      return "experts";
    case TensorFormat::kHead:
      return "head";
  }
  return "?";
}

}  // namespace foe
