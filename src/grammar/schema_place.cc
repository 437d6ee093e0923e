#include "grammar/schema_place.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "text/hex.h"

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

// Returns a reference with what it writes as % and two hexadecimal digits.
std::string without_percent(const SchemaPlace& reference) {
  const std::string& target = reference.string();
  std::string result;
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      result += target[i];
      continue;
    }
    const int high = i + 2 < target.size() ? hex_digit(target[i + 1]) : -1;
    const int low = i + 2 < target.size() ? hex_digit(target[i + 2]) : -1;
    if (high < 0 || low < 0) reference.wrong("two hexadecimal digits behind %");
    result += static_cast<char>(high * 16 + low);
    i += 2;
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

void WholeSchema::find_anchors(const json& schema) {
  if (!schema.is_structured()) return;
  if (schema.is_object() && schema.contains("$anchor") && schema["$anchor"].is_string())
    anchors_.try_emplace(schema["$anchor"].get<std::string>(), &schema);
  for (const json& part : schema) find_anchors(part);
}

SchemaPlace WholeSchema::resolve(const SchemaPlace& reference) const {
  const std::string target = without_percent(reference);
  const auto found = target.starts_with('#') ? anchors_.find(target.substr(1)) : anchors_.end();
  if (found != anchors_.end()) return {found->second, shorten(target)};
  if (target != "#" && !target.starts_with("#/"))
    reference.wrong("\"#\", \"#/...\" or \"#\" and an $anchor that is there");
  try {
    return {&root_.at(json::json_pointer(target.substr(1))), shorten(target)};
  } catch (const json::exception&) {
    reference.wrong("a pointer to a part of the schema");
  }
}

}  // namespace foe
