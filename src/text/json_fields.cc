#include "text/json_fields.h"

#include <limits>

#include "base/error.h"
#include "base/strict_json.h"

namespace foe {
namespace {

using nlohmann::json;

[[noreturn]] void wrong_type(const JsonField& field, std::string_view expected) {
  fail("{}: expected {}, got {}", field.path.empty() ? "the file" : field.path, expected, excerpt(field.value));
}

const json& null_value() {
  static const json value;
  return value;
}

}  // namespace

const json::object_t& JsonField::object() const {
  if (!value.is_object()) wrong_type(*this, "an object");
  return value.get_ref<const json::object_t&>();
}

const json::array_t& JsonField::array() const {
  if (!value.is_array()) wrong_type(*this, "an array");
  return value.get_ref<const json::array_t&>();
}

const std::string& JsonField::string() const {
  if (!value.is_string()) wrong_type(*this, "a string");
  return value.get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value.is_boolean()) wrong_type(*this, "true or false");
  return value.get<bool>();
}

std::int64_t JsonField::integer() const {
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() ||
       value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  if (!fits) wrong_type(*this, "an integer");
  return value.get<std::int64_t>();
}

JsonField JsonField::operator[](std::string_view name) const {
  std::string member = path.empty() ? std::string(name) : path + "." + std::string(name);
  const auto& members = object();
  const auto found = members.find(std::string(name));
  return {found == members.end() ? null_value() : found->second, std::move(member)};
}

JsonField JsonField::operator[](std::size_t index) const {
  if (index >= array().size()) wrong_type(*this, fmt::format("at least {} elements", index + 1));
  return {array()[index], fmt::format("{}[{}]", path, index)};
}

}  // namespace foe
