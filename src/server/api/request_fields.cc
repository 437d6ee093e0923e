#include "server/api/request_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/ranges.h>

#include "base/strict_json.h"

namespace foe {

using json = nlohmann::ordered_json;

namespace {

// Destroys everything below the value. The recursion is bounded because the parser bounds the depth.
void strip(json& value) {
  if (value.is_array()) {
    for (json& item : value.get_ref<json::array_t&>()) strip(item);
    value.get_ref<json::array_t&>().clear();
  } else if (value.is_object()) {
    for (auto& member : value.get_ref<json::object_t&>()) strip(member.second);
    value.get_ref<json::object_t&>().clear();
  }
}

}  // namespace

JsonBody::~JsonBody() {
  strip(*this);
}

JsonBody parse_object(std::string_view body) {
  JsonBody object;
  try {
    parse_ordered_json(body, "body", object);
  } catch (const Error& error) {
    throw ApiError(400, "", error.what());
  }
  if (!object.is_object())
    throw ApiError(400, "", "expected a JSON object, got " + excerpt(static_cast<const json&>(object)));
  return object;
}

const json* find_field(const json& object, const char* name) {
  const auto field = object.find(name);
  return field == object.end() || field->is_null() ? nullptr : &*field;
}

void require_members(const std::string& field, const json& object, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : object.items())
    if (!value.is_null() && std::ranges::find(known, name) == known.end())
      refuse(field, "expected {}, got \"{}\"", fmt::join(known, ", "), shorten(name));
}

bool read_bool(const json& object, const char* name, bool otherwise) {
  const json* value = find_field(object, name);
  if (!value) return otherwise;
  if (!value->is_boolean()) refuse(name, "expected true or false, got {}", excerpt(*value));
  return value->get<bool>();
}

// The parser makes floats of integers beyond 64 bits.
int read_int(const json& object, const char* name, int low, int high, int otherwise) {
  const json* value = find_field(object, name);
  if (!value) return otherwise;
  const auto in_range = [&] {
    if (value->is_number_unsigned()) return value->get<std::uint64_t>() <= static_cast<std::uint64_t>(high);
    return value->is_number_integer() && value->get<std::int64_t>() >= low && value->get<std::int64_t>() <= high;
  };
  if (!in_range() || value->get<std::int64_t>() < low)
    refuse(name, "expected an integer from {} to {}, got {}", low, high, excerpt(*value));
  return value->get<int>();
}

float read_float(const json& object, const char* name, float otherwise) {
  const json* value = find_field(object, name);
  if (!value) return otherwise;
  if (!value->is_number()) refuse(name, "expected a number, got {}", excerpt(*value));
  const double number = value->get<double>();
  if (std::abs(number) > std::numeric_limits<float>::max())
    refuse(name, "expected a number that a float can hold, got {}", excerpt(*value));
  return static_cast<float>(number);
}

std::vector<std::string> read_strings(const json& object, const char* name, std::size_t most, std::size_t max_bytes) {
  const json* value = find_field(object, name);
  if (!value) return {};
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > most) refuse(name, "expected at most {} strings, got {}", most, list.size());
  std::vector<std::string> strings;
  for (const json& item : list) {
    if (!item.is_string()) refuse(name, "expected a string or a list of strings, got {}", excerpt(*value));
    strings.push_back(item.get<std::string>());
    if (strings.back().empty() || strings.back().size() > max_bytes)
      refuse(name, "expected strings of 1 to {} bytes, got one of {}", max_bytes, strings.back().size());
  }
  return strings;
}

std::vector<std::int32_t> read_ids(const json& list, const char* name, std::size_t most, int vocab_size) {
  if (!list.is_array()) refuse(name, "expected a list of token ids, got {}", excerpt(list));
  if (list.size() > most) refuse(name, "expected at most {} token ids, got {}", most, list.size());
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const json& item : list) {
    const bool fits = item.is_number_unsigned() && item.get<std::uint64_t>() < static_cast<unsigned>(vocab_size);
    if (!fits) refuse(name, "expected token ids in [0, {}), got {}", vocab_size, excerpt(item));
    ids.push_back(item.get<std::int32_t>());
  }
  return ids;
}

}  // namespace foe
