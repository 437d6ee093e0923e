// The description of a model. Ordinary, grouped and federated models have one description, because an MoE model is a
// federation of one group (docs/architecture.md): what a model has once, and its layers, each a list of blocks. It must
// not change after validate().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/activation.h"
#include "core/expert_table.h"
#include "core/rope.h"
#include "core/router_config.h"

namespace foe {

enum class Residual { kShared, kFederated };
enum class GroupSync { kMean, kSum };
enum class QkNorm {
  kNone,
  kHead,  // RMSNorm over each head's own width, weights [C] (Qwen3)
  kFull,  // RMSNorm over all heads together, weights [N*C], [M*C] (OLMoE); federated: over each group's own heads
};
enum class AttentionKind {
  kGrouped,    // keys and values of M heads, each for N/M query heads
  kLatent,     // keys and values are projections of one latent vector (DeepSeek's MLA)
  kRecurrent,  // a state of fixed size per sequence in place of keys and values
};
enum class BlockNorm {
  kBefore,  // a block reads norm(r)
  kAfter,   // a block reads r, and norm(output) is added to r (OLMo 2)
  kBoth,    // with weights of their own (Gemma 2)
  kShared,  // a parallel block without a norm of its own: it reads what the block before it reads (Cohere, Phi)
};

// The letters are the shape suffixes that the code uses everywhere: scores_TE has shape [tokens, experts].
struct AttentionConfig {
  AttentionKind kind = AttentionKind::kGrouped;
  int query_heads = 0;  // N
  int kv_heads = 0;     // M
  int key_width = 0;    // C, of one head's query and key
  int value_width = 0;  // of one head's value; 0: as wide as its key
  // The groups of a federated model share the bias of the output projection, and each adds it.
  bool qkv_bias = false, output_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool norm_after_rope = false;  // QK norm comes after RoPE, and otherwise before it (Hunyuan)
  int window = 0;                // a query at p sees positions (p - window, p]; 0: all up to p
  bool sinks = false;            // a logit for each query head takes part in its softmax, without a value
  double rotary_share = 1;       // this share of a head's width rotates, from its beginning; 0: the layer has no RoPE
  bool interleaved = false;      // pairs are (2i, 2i + 1), otherwise (i, i + half the rotating width)
  double rope_theta = 10000.0;
  double rope_factor = 1.0;       // linear: positions are divided by it
  bool rope_f32 = false;          // angles are rounded to f32 (core/rope.h)
  RopeScaling rope_scaling = {};  // all other ways to stretch frequencies; then rope_factor is 1
  double scale = 0;               // scores are multiplied by it; 0: by 1 / sqrt(key_width)
  double softcap = 0;             // scores become softcap * tanh(score / softcap); 0: they stay

  int per_kv_head() const { return query_heads / kv_heads; }
  int head_value_width() const { return value_width == 0 ? key_width : value_width; }  // W
  int rotary_width() const { return static_cast<int>(key_width * rotary_share); }      // rounded down
  Rotation rotation() const { return {rope_theta, rope_factor, rotary_width(), rope_f32, rope_scaling}; }
  std::int64_t queries_width() const { return std::int64_t{query_heads} * key_width; }       // N * C
  std::int64_t keys_width() const { return std::int64_t{kv_heads} * key_width; }             // M * C
  std::int64_t values_width() const { return std::int64_t{kv_heads} * head_value_width(); }  // M * W
  bool operator==(const AttentionConfig&) const = default;
};

// Where the weights of a layer's routed experts stand.
enum class ExpertStorage {
  kOwn,     // in tensors of their own
  kSlices,  // in one network's: the e-th expert is the e-th slice of so many hidden units
};

// core/expert_table.h says what the kinds of experts compute.
struct ExpertsConfig {
  int count = 0;      // E, routed experts; 1 without a router
  int per_token = 0;  // K; 1 without a router
  int width = 0;      // F, the hidden width of each
  Activation activation = Activation::kSilu;
  GateShape gate = {};
  bool bias = false;                        // gate, up and down have biases
  std::optional<RouterConfig> router = {};  // none: every token goes to the one expert with weight 1
  int shared = 0;            // experts that every token has besides: slices of one network, all of the same width
  int shared_width = 0;      // the hidden width of each of them; 0: as wide as the routed ones
  bool shared_gate = false;  // their weight is the sigmoid of one more score, otherwise 1
  int constant = 0, copy = 0, zero = 0;  // affine experts, that the router scores behind the others of their group
  ExpertStorage storage = ExpertStorage::kOwn;
  int of_layer = -1;  // if not -1: the routed experts are those of this layer, which is below and has its own

  bool dense() const { return !router; }
  int width_of_shared() const { return shared_width > 0 ? shared_width : width; }
  int widest() const { return shared > 0 && width_of_shared() > width ? width_of_shared() : width; }
  bool operator==(const ExpertsConfig&) const = default;
};

// What reads the residual r and adds to it. A parallel block reads the same r as the block before it, and not what that
// adds: experts beside attention (GPT-J), or attention beside the experts of the layer below.
struct BlockConfig {
  std::variant<AttentionConfig, ExpertsConfig> computes;
  BlockNorm norm = BlockNorm::kBefore;
  double residual_factor = 1;  // multiplies what is added
  bool parallel = false;

  bool operator==(const BlockConfig&) const = default;
};

struct LayerConfig {
  std::vector<BlockConfig> blocks;

  bool operator==(const LayerConfig&) const = default;
};

// Names of single fields are those of config.json.
struct ModelConfig {
  int hidden_size = 0;  // D
  int vocab_size = 0;   // V
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  int max_position_embeddings = 0;
  int expert_groups = 1;  // H
  Residual residual = Residual::kShared;
  GroupSync group_sync = GroupSync::kMean;
  int group_sync_every = 1;     // of a federated model's layers, the first of every so many sums over groups
  double norm_offset = 0;       // is added to the weights of norms as they are stored: 1 in Gemma
  double embedding_factor = 1;  // multiplies the embedding
  double logit_factor = 1;      // multiplies the logits
  double logit_softcap = 0;     // then they become softcap * tanh(logit / softcap); 0: they stay
  std::vector<LayerConfig> layers;
  // Beginnings of the names of tensors that a folder may have and nothing needs: those of layers behind the last one,
  // which predict further tokens.
  std::vector<std::string> unused_tensors;
  std::string model_type;                   // as found in config.json
  std::vector<std::int32_t> eos_token_ids;  // from generation_config.json, else config.json; may be empty
  std::optional<std::int32_t> bos_token_id;

  int num_layers() const { return static_cast<int>(layers.size()); }  // L
  // A layer's blocks, of which it must have one each.
  const AttentionConfig& attention(int layer) const;
  const ExpertsConfig& experts(int layer) const;
  const BlockConfig& attention_block(int layer) const;
  const BlockConfig& experts_block(int layer) const;
  AttentionConfig& attention(int layer);
  ExpertsConfig& experts(int layer);
  // For what is the same in all layers of a valid model: the heads, their widths, and the kind of their norms.
  const AttentionConfig& heads() const { return attention(0); }
  // No layer has a router.
  bool dense() const;

  // One group has nothing to federate: with H = 1 the federated equations are the shared ones.
  bool federated() const { return residual == Residual::kFederated && expert_groups > 1; }
  // The factor c with which a federated model adds the sum over groups to the residual (docs/architecture.md, "The
  // layer"); 1 for other models.
  float sync_scale() const {
    return federated() && group_sync == GroupSync::kMean ? 1.0f / static_cast<float>(expert_groups) : 1.0f;
  }

  // How a layer of a federated model takes part in the federation. Other models have no updates of groups.
  // Whether its attention ends in the sum over groups. If it does not, what a group's attention adds stays with the
  // group, and the group's experts read r + M_h.
  bool syncs(int layer) const { return !federated() || layer % group_sync_every == 0; }
  // Whether groups have updates that r has not when the layer begins: those of the experts of the layers below.
  bool has_pending_updates(int layer) const { return federated() && layer > 0 && !experts_block(layer - 1).parallel; }
  // Whether its attention reads r + M_h, for every group h another one.
  bool reads_updates(int layer) const { return has_pending_updates(layer) && !attention_block(layer).parallel; }
  // Whether its attention's sum takes the groups' updates with it, which may be those of the same layer.
  bool sums_updates(int layer) const {
    return has_pending_updates(layer) || (federated() && experts_block(layer).parallel);
  }
  // How many sums over groups a step has; 0 if the model is not federated.
  int group_sums() const;

  bool operator==(const ModelConfig&) const = default;
};

// Returns up to which length all prompts have the same keys and values where they begin alike, since RoPE's frequencies
// depend on the length of longer ones; 0: of any length.
int alike_positions(const ModelConfig& config);

// Returns the table of a layer's experts. A dense layer has one expert, that every token has.
ExpertTable expert_table(const ModelConfig& config, int layer);
// Returns the hidden width of an expert with rows.
int expert_width(const ModelConfig& config, int layer, int id);
// Returns how many experts with rows a token has at most of what adds to one sum: in a federated model a group.
int most_summed_entries(const ModelConfig& config, int layer);
// Return how many experts a token of the layer, or of any layer, has at most.
int most_entries(const ModelConfig& config, int layer);
int most_entries(const ModelConfig& config);

// Returns so many layers of attention and then experts. Throws Error for a number of layers that no model has.
std::vector<LayerConfig> uniform_layers(int count, const AttentionConfig& attention, const ExpertsConfig& experts);
// Drops the last layers, or repeats all of them in turn, until there are so many.
void set_layers(ModelConfig& config, int count);
// Returns a block with one expert of this width, to which every token goes.
ExpertsConfig dense_experts(int width, Activation activation = Activation::kSilu);

// Calls f(block) for every AttentionConfig, or every ExpertsConfig, in their order.
template <typename Config, typename F>
void for_each_attention(Config& config, F&& f) {
  for (auto& layer : config.layers)
    for (auto& block : layer.blocks)
      if (auto* attention = std::get_if<AttentionConfig>(&block.computes)) f(*attention);
}
template <typename Config, typename F>
void for_each_experts(Config& config, F&& f) {
  for (auto& layer : config.layers)
    for (auto& block : layer.blocks)
      if (auto* experts = std::get_if<ExpertsConfig>(&block.computes)) f(*experts);
}

// Throws Error, naming the key, what was expected and what was found, unless the model can be run. Every size is
// bounded, so that products of sizes fit into 64 bits and no later allocation is unbounded.
void validate(const ModelConfig& config);
// The same for one layer alone, of which the keys in messages begin with `prefix`, such as "layers[3].". Those below
// must be valid.
void validate_layer(const ModelConfig& config, int layer, const std::string& prefix);

const char* to_string(Residual value);
const char* to_string(GroupSync value);
const char* to_string(QkNorm value);
const char* to_string(AttentionKind value);
const char* to_string(BlockNorm value);
const char* to_string(ExpertStorage value);

}  // namespace foe
