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

void read_rope(const json& object, AttentionConfig& attention) {
  const json* theta = find(object, "rope_theta");
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* rope = find(object, key);
    if (!rope) continue;
    attention.rope_factor = read_rope_factor(*rope, key);
    if (const json* inner = find(*rope, "rope_theta")) theta = inner;
    if (const json* part = find(*rope, "partial_rotary_factor"); part && *part != 1.0)
      fail("{}.partial_rotary_factor: expected 1, got {}", key, excerpt(*part));
    break;
  }
  if (theta) attention.rope_theta = as_double(*theta, "rope_theta");
}

}  // namespace

const std::vector<std::string>& attention_keys() {
  static const std::vector<std::string> keys = {"num_attention_heads",
                                                "num_key_value_heads",
                                                "head_dim",
                                                "v_head_dim",
                                                "qkv_bias",
                                                "output_bias",
                                                "qk_norm",
                                                "sinks",
                                                "sliding_window",
                                                "partial_rotary_factor",
                                                "rope_interleaved",
                                                "rope_theta",
                                                "rope_scaling",
                                                "attention_scale",
                                                "attn_logit_softcapping",
                                                "attention_kind"};
  return keys;
}

void read_attention_keys(const json& object, AttentionConfig& a) {
  a.kind = get_choice(object, "attention_kind", a.kind,
                      {AttentionKind::kGrouped, AttentionKind::kLatent, AttentionKind::kRecurrent});
  a.query_heads = get_int(object, "num_attention_heads", a.query_heads);
  a.kv_heads = get_int(object, "num_key_value_heads", a.kv_heads);
  a.key_width = get_int(object, "head_dim", a.key_width);
  a.value_width = get_int(object, "v_head_dim", a.value_width);
  a.qkv_bias = get_bool(object, "qkv_bias", a.qkv_bias);
  a.output_bias = get_bool(object, "output_bias", a.output_bias);
  a.qk_norm = get_choice(object, "qk_norm", a.qk_norm, {QkNorm::kNone, QkNorm::kHead, QkNorm::kFull});
  a.window = get_int(object, "sliding_window", a.window);
  a.sinks = get_bool(object, "sinks", a.sinks);
  a.rotary_share = get_double(object, "partial_rotary_factor", a.rotary_share);
  a.interleaved = get_bool(object, "rope_interleaved", a.interleaved);
  read_rope(object, a);
  a.scale = get_double(object, "attention_scale", a.scale);
  a.softcap = get_double(object, "attn_logit_softcapping", a.softcap);
}

void write_attention_keys(const AttentionConfig& a, const AttentionConfig& other, nlohmann::ordered_json& object) {
  write_other(object, "attention_kind", to_string(a.kind), to_string(other.kind));
  write_other(object, "num_attention_heads", a.query_heads, other.query_heads);
  write_other(object, "num_key_value_heads", a.kv_heads, other.kv_heads);
  write_other(object, "head_dim", a.key_width, other.key_width);
  write_other(object, "v_head_dim", a.value_width, other.value_width);
  write_other(object, "qkv_bias", a.qkv_bias, other.qkv_bias);
  write_other(object, "output_bias", a.output_bias, other.output_bias);
  write_other(object, "qk_norm", to_string(a.qk_norm), to_string(other.qk_norm));
  write_other(object, "sliding_window", a.window, other.window);
  write_other(object, "sinks", a.sinks, other.sinks);
  write_other(object, "partial_rotary_factor", a.rotary_share, other.rotary_share);
  write_other(object, "rope_interleaved", a.interleaved, other.interleaved);
  write_other(object, "rope_theta", a.rope_theta, other.rope_theta);
  if (a.rope_factor != other.rope_factor)
    object["rope_scaling"] = a.rope_factor == 1.0
                                 ? nlohmann::ordered_json{{"rope_type", "default"}}
                                 : nlohmann::ordered_json{{"rope_type", "linear"}, {"factor", a.rope_factor}};
  write_other(object, "attention_scale", a.scale, other.scale);
  write_other(object, "attn_logit_softcapping", a.softcap, other.softcap);
}

}  // namespace foe
