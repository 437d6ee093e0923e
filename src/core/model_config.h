// The description of a model. Ordinary, grouped and federated models have one description, because an MoE model is a
// federation of one group (docs/architecture.md). It must not change after validate().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace foe {

enum class Residual { kShared, kFederated };
enum class GroupSync { kMean, kSum };
enum class QkNorm {
  kNone,
  kHead,  // RMSNorm over each head's own width, weights [C] (Qwen3)
  kFull,  // RMSNorm over all heads together, weights [N*C], [M*C] (OLMoE); federated: over each group's own heads
};

// The names are those of config.json. The letters are the shape suffixes that the code uses everywhere: scores_TE has
// shape [tokens, experts].
struct ModelConfig {
  int hidden_size = 0;            // D
  int num_hidden_layers = 0;      // L
  int num_attention_heads = 0;    // N
  int num_key_value_heads = 0;    // M
  int head_dim = 0;               // C
  int vocab_size = 0;             // V
  int num_experts = 0;            // E; 0: a dense model, which has one expert of this width and no router
  int num_experts_per_tok = 0;    // K
  int moe_intermediate_size = 0;  // F
  bool norm_topk_prob = false;
  double rope_theta = 10000.0;
  double rope_scaling_factor = 1.0;  // linear: positions are divided by it
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  int max_position_embeddings = 0;
  QkNorm qk_norm = QkNorm::kNone;
  int expert_groups = 1;  // H
  Residual residual = Residual::kShared;
  GroupSync group_sync = GroupSync::kMean;
  std::string model_type;                   // as found in config.json; selects the tensor names ("mixtral" differs)
  std::vector<std::int32_t> eos_token_ids;  // from generation_config.json, else config.json; may be empty
  std::optional<std::int32_t> bos_token_id;

  bool dense() const { return num_experts == 0; }
  // A dense model runs as one expert that every token selects with weight 1.
  int experts() const { return dense() ? 1 : num_experts; }
  int experts_per_token() const { return dense() ? 1 : num_experts_per_tok; }
  // One group has nothing to federate: with H = 1 the federated equations are the shared ones.
  bool federated() const { return residual == Residual::kFederated && expert_groups > 1; }
  // The factor c with which a federated model adds the sum over groups to the residual (docs/architecture.md, "The
  // layer"); 1 for other models.
  float sync_scale() const {
    return federated() && group_sync == GroupSync::kMean ? 1.0f / static_cast<float>(expert_groups) : 1.0f;
  }

  bool operator==(const ModelConfig&) const = default;
};

// Throws Error, naming the key, what was expected and what was found, unless the model can be run. Every size is
// bounded, so that products of sizes fit into 64 bits and no later allocation is unbounded.
void validate(const ModelConfig& config);

// Return the number of all parameters in the model folder, and of those that one token uses: without the experts that
// it does not select. The whole embedding counts in both, as in the figures that models are published with. Both
// require a validated config.
std::int64_t parameter_count(const ModelConfig& config);
std::int64_t active_parameter_count(const ModelConfig& config);

const char* to_string(Residual value);
const char* to_string(GroupSync value);
const char* to_string(QkNorm value);

}  // namespace foe
