#include "core/model_config.h"

#include <cmath>
#include <limits>

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

void check_range(const char* key, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) fail("{}: expected an integer from {} to {}, got {}", key, low, high, value);
}

void check_positive(const char* key, double value) {
  if (!(value > 0) || !std::isfinite(value)) fail("{}: expected a finite number above 0, got {}", key, value);
}

// Throws Error unless `groups`, which must be positive, divides a value.
void check_groups_divide(int groups, const char* key, int value) {
  if (value % groups != 0) fail("expert_groups: expected a divisor of {} = {}, got {}", key, value, groups);
}

void check_attention(const ModelConfig& config) {
  check_range("num_attention_heads", config.num_attention_heads, 1, kMaxHeads);
  check_range("num_key_value_heads", config.num_key_value_heads, 1, kMaxHeads);
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    fail("num_attention_heads: expected a multiple of num_key_value_heads = {}, got {}", config.num_key_value_heads,
         config.num_attention_heads);
  check_range("head_dim", config.head_dim, 1, kMaxHeadDim);
  if (config.head_dim % 2 != 0) fail("head_dim: expected an even number (RoPE rotates pairs), got {}", config.head_dim);
  check_positive("rope_theta", config.rope_theta);
  if (!(config.rope_scaling_factor >= 1) || !std::isfinite(config.rope_scaling_factor))
    fail("rope_scaling.factor: expected a finite number of at least 1, got {}", config.rope_scaling_factor);
}

void check_experts(const ModelConfig& config) {
  check_range("num_experts", config.num_experts, 0, kMaxExperts);
  check_range(config.dense() ? "intermediate_size" : "moe_intermediate_size", config.moe_intermediate_size, 1,
              kMaxExpertWidth);
  check_range("expert_groups", config.expert_groups, 1, kMaxHeads);
  if (config.dense()) {
    check_range("num_experts_per_tok (of a dense model)", config.num_experts_per_tok, 0, 1);
    if (config.expert_groups != 1)
      fail("expert_groups: expected 1 in a dense model (num_experts = 0), got {}", config.expert_groups);
    return;
  }
  check_range("num_experts_per_tok", config.num_experts_per_tok, 1, config.num_experts);
  check_groups_divide(config.expert_groups, "num_key_value_heads", config.num_key_value_heads);
  check_groups_divide(config.expert_groups, "num_experts", config.num_experts);
  check_groups_divide(config.expert_groups, "num_experts_per_tok", config.num_experts_per_tok);
}

// Returns the number of parameters with so many experts in each layer.
std::int64_t count_parameters(const ModelConfig& config, std::int64_t experts) {
  const std::int64_t D = config.hidden_size, V = config.vocab_size;
  const std::int64_t q_width = std::int64_t{config.num_attention_heads} * config.head_dim;
  const std::int64_t kv_width = std::int64_t{config.num_key_value_heads} * config.head_dim;
  const std::int64_t attention = D * (2 * q_width + 2 * kv_width);
  const std::int64_t qk_norms = config.qk_norm == QkNorm::kFull   ? q_width + kv_width
                                : config.qk_norm == QkNorm::kHead ? 2 * std::int64_t{config.head_dim}
                                                                  : 0;
  const std::int64_t router = config.num_experts * D;
  const std::int64_t expert = 3 * D * config.moe_intermediate_size;
  const std::int64_t layer = attention + qk_norms + router + experts * expert + 2 * D;
  return (config.tie_word_embeddings ? 1 : 2) * V * D + config.num_hidden_layers * layer + D;
}

}  // namespace

void validate(const ModelConfig& config) {
  check_range("hidden_size", config.hidden_size, 1, kMaxHidden);
  check_range("num_hidden_layers", config.num_hidden_layers, 1, kMaxLayers);
  check_range("vocab_size", config.vocab_size, 1, kMaxVocab);
  check_range("max_position_embeddings", config.max_position_embeddings, 1, kMaxPositions);
  check_positive("rms_norm_eps", config.rms_norm_eps);
  check_attention(config);
  check_experts(config);
  // End tokens may be outside the vocabulary: small test models keep that of the family that they imitate, and never
  // generate it.
  constexpr std::int64_t kMaxToken = std::numeric_limits<std::int32_t>::max();
  for (const std::int32_t token : config.eos_token_ids) check_range("eos_token_id", token, 0, kMaxToken);
  if (config.bos_token_id) check_range("bos_token_id", *config.bos_token_id, 0, kMaxToken);
}

std::int64_t parameter_count(const ModelConfig& config) {
  return count_parameters(config, config.experts());
}

std::int64_t active_parameter_count(const ModelConfig& config) {
  return count_parameters(config, config.experts_per_token());
}

const char* to_string(Residual value) {
  return value == Residual::kShared ? "shared" : "federated";
}

const char* to_string(GroupSync value) {
  return value == GroupSync::kMean ? "mean" : "sum";
}

const char* to_string(QkNorm value) {
  switch (value) {
    case QkNorm::kNone:
      return "none";
    case QkNorm::kHead:
      return "head";
    case QkNorm::kFull:
      return "full";
  }
  return "?";
}

}  // namespace foe
