#include "weights/attention_json.h"

#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

// `rope` is the object that holds rope_type and factor: transformers 4 calls it rope_scaling, 5 rope_parameters.
double read_rope_factor(const json& rope, const char* key) {
  if (!rope.is_object()) fail("{}: expected an object or null, got {}", key, excerpt(rope));
  const json* type = find(rope, "rope_type");
  if (!type) type = find(rope, "type");
  if (type && *type == "linear") {
    const std::string factor_key = fmt::format("{}.factor", key);
    const json* factor = find(rope, "factor");
    if (!factor) fail("{}: expected a number, got none", factor_key);
    return as_double(*factor, factor_key.c_str());
  }
  const bool plain = type ? *type == "default" : !find(rope, "factor");
  if (!plain)
    fail("{}.rope_type: expected \"default\" or \"linear\", got {}", key, type ? excerpt(*type) : std::string("none"));
  return 1.0;
}

// Reads what is beside "rope_theta".
void read_rope(const json& object, AttentionConfig& attention) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* rope = find(object, key);
    if (!rope) continue;
    attention.rope_factor = read_rope_factor(*rope, key);
    if (const json* theta = find(*rope, "rope_theta")) attention.rope_theta = as_double(*theta, "rope_theta");
    if (const json* part = find(*rope, "partial_rotary_factor"); part && *part != 1.0)
      fail("{}.partial_rotary_factor: expected 1, got {}", key, excerpt(*part));
    break;
  }
}

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
  visit("sliding_window", &A::window);
  visit("sinks", &A::sinks);
  visit("partial_rotary_factor", &A::rotary_share);
  visit("rope_interleaved", &A::interleaved);
  visit("rope_theta", &A::rope_theta);
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
  read_rope(object, attention);
}

void write_attention_keys(const AttentionConfig& attention, const AttentionConfig& other,
                          nlohmann::ordered_json& object) {
  visit_attention_keys(KeyWriter<AttentionConfig>{object, attention, other});
  if (attention.rope_factor != other.rope_factor)
    object["rope_scaling"] = attention.rope_factor == 1.0
                                 ? nlohmann::ordered_json{{"rope_type", "default"}}
                                 : nlohmann::ordered_json{{"rope_type", "linear"}, {"factor", attention.rope_factor}};
}

}  // namespace foe
