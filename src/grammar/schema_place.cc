#include "grammar/schema_place.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

std::string pointer_token(const std::string& name) {
  std::string result;
  for (const char c : name) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

void SchemaPlace::wrong(std::string_view expected) const {
  fail("{}: expected {}, got {}", path, expected, excerpt(*value));
}

SchemaPlace SchemaPlace::member(const std::string& name) const {
  return {&value->at(name), path + "/" + shorten(pointer_token(name))};
}

SchemaPlace SchemaPlace::element(std::size_t index) const {
  return {&value->at(index), fmt::format("{}/{}", path, index)};
}

const json& SchemaPlace::object() const {
  if (!value->is_object()) wrong("an object");
  return *value;
}

const json& SchemaPlace::array() const {
  if (!value->is_array()) wrong("an array");
  return *value;
}

const std::string& SchemaPlace::string() const {
  if (!value->is_string()) wrong("a string");
  return value->get_ref<const std::string&>();
}

double SchemaPlace::number() const {
  if (!value->is_number()) wrong("a number");
  return value->get<double>();
}

std::uint32_t SchemaPlace::count() const {
  if (!value->is_number_unsigned()) wrong("an integer of at least 0");
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(value->get<std::uint64_t>(), kMax));
}

SchemaPlace resolve(const json& root, const SchemaPlace& reference) {
  const std::string& target = reference.string();
  const bool plain = target == "#" || target.starts_with("#/");
  if (!plain || target.find('%') != std::string::npos) reference.wrong("\"#\" or \"#/...\" without %");
  try {
    return {&root.at(json::json_pointer(target.substr(1))), shorten(target)};
  } catch (const json::exception&) {
    reference.wrong("a pointer to a part of the schema");
  }
}

}  // namespace foe
