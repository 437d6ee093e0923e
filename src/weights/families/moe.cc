// Families whose layers have a softmax router and experts, and nothing else.
#include <algorithm>
#include <array>

#include "weights/families/family.h"
#include "weights/families/family_parts.h"
#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

// Reads the experts' number, which has two names: the family's, and that of all families in transformers 5.
int read_expert_count(const ConfigKeys& keys, const char* model_type) {
  const json *experts = keys.value("num_experts"), *local = keys.value("num_local_experts");
  if (experts && local && *experts != *local)
    fail("num_experts: expected the value of num_local_experts = {}, got {}", excerpt(*local), excerpt(*experts));
  if (!experts) experts = local;
  const int count = experts ? keys::as_int(*experts, "num_experts") : 0;
  if (count == 0)
    fail("num_experts: expected at least 1 in a model of type {}, got {}", model_type, experts ? "0" : "no such key");
  return count;
}

ExpertsConfig read_experts(const ConfigKeys& keys, const char* model_type, const char* width, bool renormalises) {
  return read_softmax_experts(keys, read_expert_count(keys, model_type), "num_experts_per_tok", width, renormalises);
}

void read_olmoe(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kFull;
  attention.rope_f32 = false;  // foe writes this type, too, for what it has trained
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention,
                                 read_experts(keys, "olmoe", "intermediate_size", keys.flag("norm_topk_prob")));
}

void read_mixtral(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.window = read_window_of_all(keys);
  keys.expect("norm_topk_prob", true);
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention,
                                 read_experts(keys, "mixtral", "intermediate_size", true));
}

// Layers are sparse whose number, counted from 1, decoder_sparse_step divides, but for those that mlp_only_layers
// names.
void read_qwen3_moe(const ConfigKeys& keys, ModelConfig& config) {
  AttentionConfig attention = read_attention(keys, config);
  attention.qkv_bias = attention.output_bias = keys.flag("attention_bias");
  attention.qk_norm = QkNorm::kHead;
  attention.window = read_window_of_all(keys, keys.flag("use_sliding_window"));
  const ExpertsConfig experts = read_experts(keys, "qwen3_moe", "moe_intermediate_size", keys.flag("norm_topk_prob"));
  config.layers = uniform_layers(keys.integer("num_hidden_layers"), attention, experts);
  set_dense_between(keys, config);
}

constexpr std::array kMoeFamilies = {
    Family{"olmoe", read_olmoe, R"({"rms_norm_eps": 1e-5})"},
    Family{"mixtral", read_mixtral, R"({"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "num_key_value_heads": 8})"},
    Family{"qwen3_moe", read_qwen3_moe,
           R"({"rms_norm_eps": 1e-6, "sliding_window": 4096, "decoder_sparse_step": 1, "num_key_value_heads": 4})"},
};

}  // namespace

std::span<const Family> moe_families() {
  return kMoeFamilies;
}

}  // namespace foe
