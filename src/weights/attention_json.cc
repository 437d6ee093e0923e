#include "weights/attention_json.h"

#include "weights/json_keys.h"
#include "weights/rope_json.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

// All keys but "rope_scaling".
template <typename Visit>
void visit_attention_keys(Visit&& visit) {
  using A = AttentionConfig;
  visit("attention_kind", &A::kind, {AttentionKind::kGrouped, AttentionKind::kLatent, AttentionKind::kRecurrent});
  visit("num_attention_heads", &A::query_heads);
  visit("num_key_value_heads", &A::kv_heads);
  visit("head_dim", &A::key_width);
  visit("v_head_dim", &A::value_width);
  visit("qkv_bias", &A::qkv_bias);
  visit("output_bias", &A::output_bias);
  visit("qk_norm", &A::qk_norm, {QkNorm::kNone, QkNorm::kHead, QkNorm::kFull});
  visit("qk_norm_after_rope", &A::norm_after_rope);
  visit("sliding_window", &A::window);
  visit("sinks", &A::sinks);
  visit("partial_rotary_factor", &A::rotary_share);
  visit("rope_interleaved", &A::interleaved);
  visit("rope_theta", &A::rope_theta);
  visit("rope_f32", &A::rope_f32);
  visit("attention_scale", &A::scale);
  visit("attn_logit_softcapping", &A::softcap);
}

}  // namespace

std::vector<std::string> attention_keys() {
  KeyNames keys;
  visit_attention_keys(keys);
  keys.names.push_back("rope_scaling");
  return keys.names;
}

void read_attention_keys(const json& object, AttentionConfig& attention) {
  visit_attention_keys(KeyReader<AttentionConfig>{object, attention});
  if (const json* scaling = find(object, "rope_scaling")) {
    read_rope_scaling(*scaling, "rope_scaling", {}, attention);
  }
}

void write_attention_keys(const AttentionConfig& attention, const AttentionConfig& other,
                          nlohmann::ordered_json& object) {
  visit_attention_keys(KeyWriter<AttentionConfig>{object, attention, other});
  if (attention.rope_factor != other.rope_factor || attention.rope_scaling != other.rope_scaling)
    object["rope_scaling"] = write_rope_scaling(attention);
}

}  // namespace foe
