// Reads typed members of a JSON object. All functions throw Error, naming the member, if it has another type. To be
// included by .cc files only, because it is slow to compile.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace foe {

// A member of an object, and the path to it for messages: {value, "model.vocab"}.
struct JsonField {
  const nlohmann::json& value;
  std::string path;

  bool null() const { return value.is_null(); }
  const nlohmann::json::object_t& object() const;
  const nlohmann::json::array_t& array() const;
  const std::string& string() const;
  bool boolean() const;
  std::int64_t integer() const;  // must fit into a signed 64-bit integer

  JsonField operator[](std::string_view name) const;  // a null field if there is none; Error if this is not an object
  JsonField operator[](std::size_t index) const;      // Error if this is not an array, or is shorter
  bool boolean_or(bool fallback) const { return null() ? fallback : boolean(); }
};

}  // namespace foe
