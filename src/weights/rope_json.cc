#include "weights/rope_json.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr const char* kLinear = "linear";  // which is rope_factor
constexpr RopeType kRopeTypes[] = {RopeType::kDefault, RopeType::kDynamic, RopeType::kLlama3, RopeType::kYarn,
                                   RopeType::kLongRope};

// None: linear.
std::optional<RopeType> read_rope_type(const json& object, const std::string& name) {
  const json* said = keys::find(object, "rope_type");
  if (!said) said = keys::find(object, "type");
  if (!said && !keys::find(object, "factor")) return RopeType::kDefault;
  if (said && *said == kLinear) return std::nullopt;
  std::string names = fmt::format("\"{}\"", kLinear);
  for (const RopeType type : kRopeTypes) {
    if (said && *said == to_string(type)) return type;
    names += fmt::format(" or \"{}\"", to_string(type));
  }
  fail("{}.rope_type: expected {}, got {}", name, names, said ? excerpt(*said) : std::string("none"));
}

std::vector<std::string> keys_of(std::optional<RopeType> type) {
  std::vector<std::string> names = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  const auto add = [&](std::initializer_list<const char*> more) {
    names.insert(names.end(), more.begin(), more.end());
  };
  if (type != RopeType::kDefault) add({"factor", "original_max_position_embeddings"});
  if (type == RopeType::kLlama3) add({"low_freq_factor", "high_freq_factor"});
  if (type == RopeType::kYarn)
    add({"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "finetuned"});
  if (type == RopeType::kLongRope) add({"attention_factor", "short_factor", "long_factor"});
  return names;
}

std::vector<double> read_divisors(const json& object, const char* key) {
  const json& list = keys::require(object, key);
  if (!list.is_array()) fail("{}: expected a list of numbers, got {}", key, excerpt(list));
  std::vector<double> divisors;
  for (const json& divisor : list) divisors.push_back(keys::as_double(divisor, key));
  return divisors;
}

int read_original_positions(const json& object, RopeType type, const RopeContext& context) {
  constexpr const char* kKey = "original_max_position_embeddings";
  if (type == RopeType::kDynamic && context.positions > 0) return context.positions;
  if (context.original_positions > 0) return context.original_positions;
  return context.positions > 0 ? keys::get_int(object, kKey, context.positions) : keys::get_int(object, kKey);
}

// By which texts may be longer. Where LongRoPE does not say it, or YaRN says null, it follows from the two lengths; of
// YaRN without the key, transformers refuses it, too.
double read_factor(const json& object, const RopeScaling& scaling, const RopeContext& context) {
  const bool follows =
      (scaling.type == RopeType::kYarn && object.contains("factor")) || scaling.type == RopeType::kLongRope;
  if (keys::find(object, "factor") || !follows || context.positions == 0 || scaling.original_positions < 1)
    return keys::as_double(keys::require(object, "factor"), "factor");
  return static_cast<double>(context.positions) / scaling.original_positions;
}

void read_numbers(const json& object, const RopeContext& context, RopeScaling& s) {
  s.original_positions = read_original_positions(object, s.type, context);
  s.factor = read_factor(object, s, context);
  if (s.type == RopeType::kLlama3) {
    s.low_freq_factor = keys::as_double(keys::require(object, "low_freq_factor"), "low_freq_factor");
    s.high_freq_factor = keys::as_double(keys::require(object, "high_freq_factor"), "high_freq_factor");
  }
  s.attention_factor = keys::get_double(object, "attention_factor", 0);
  if (s.type == RopeType::kYarn) {
    const auto positive = [&](const char* key, double otherwise) {
      const double value = keys::get_double(object, key, otherwise);
      return value == 0 ? otherwise : value;  // as good as absent
    };
    s.beta_fast = positive("beta_fast", s.beta_fast);
    s.beta_slow = positive("beta_slow", s.beta_slow);
    s.mscale = keys::get_double(object, "mscale", s.mscale);
    s.mscale_all_dim = keys::get_double(object, "mscale_all_dim", s.mscale_all_dim);
    s.truncate = keys::get_bool(object, "truncate", s.truncate);
  }
  if (s.type == RopeType::kLongRope) {
    s.short_factor = read_divisors(object, "short_factor");
    s.long_factor = read_divisors(object, "long_factor");
    s.factor = std::max(s.factor, 1.0);  // below 1 it means the same
  }
}

}  // namespace

void read_rope_scaling(const json& object, const std::string& name, const RopeContext& context,
                       AttentionConfig& attention) {
  if (!object.is_object()) fail("{}: expected an object or null, got {}", name, excerpt(object));
  const std::optional<RopeType> type = read_rope_type(object, name);
  json said = object;
  for (auto it = said.begin(); it != said.end();) it = it->is_null() ? said.erase(it) : std::next(it);
  keys::expect_only(said, name, keys_of(type));
  attention.rope_factor = 1;
  attention.rope_scaling = {.type = type.value_or(RopeType::kDefault)};
  keys::within(name, [&] {
    if (!type)
      attention.rope_factor = keys::as_double(keys::require(said, "factor"), "factor");
    else if (*type != RopeType::kDefault)
      read_numbers(said, context, attention.rope_scaling);
  });
}

nlohmann::ordered_json write_rope_scaling(const AttentionConfig& attention) {
  const RopeScaling &s = attention.rope_scaling, plain;
  if (attention.rope_factor != 1) return {{"rope_type", kLinear}, {"factor", attention.rope_factor}};
  nlohmann::ordered_json object{{"rope_type", to_string(s.type)}};
  if (s.type == RopeType::kDefault) return object;
  object["factor"] = s.factor;
  object["original_max_position_embeddings"] = s.original_positions;
  keys::write_other(object, "attention_factor", s.attention_factor, plain.attention_factor);
  if (s.type == RopeType::kLlama3) {
    object["low_freq_factor"] = s.low_freq_factor;
    object["high_freq_factor"] = s.high_freq_factor;
  }
  if (s.type == RopeType::kYarn) {
    keys::write_other(object, "beta_fast", s.beta_fast, plain.beta_fast);
    keys::write_other(object, "beta_slow", s.beta_slow, plain.beta_slow);
    keys::write_other(object, "mscale", s.mscale, plain.mscale);
    keys::write_other(object, "mscale_all_dim", s.mscale_all_dim, plain.mscale_all_dim);
    keys::write_other(object, "truncate", s.truncate, plain.truncate);
  }
  if (s.type == RopeType::kLongRope) {
    object["short_factor"] = s.short_factor;
    object["long_factor"] = s.long_factor;
  }
  return object;
}

}  // namespace foe
