// Reading typed members of a JSON object, with errors that name them. For .cc files: it is slow to compile.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace foe {

// An object's member and the path to it, for messages: {value, "model.vocab"}.
struct JsonField {
  const nlohmann::json& value;
  std::string path;

  bool null() const { return value.is_null(); }
  const nlohmann::json::object_t& object() const;
  const nlohmann::json::array_t& array() const;
  const std::string& string() const;
  bool boolean() const;
  std::int64_t integer() const;  // within 64 bits, signed

  JsonField operator[](std::string_view name) const;  // a null field if there is none; Error if this is no object
  JsonField operator[](std::size_t index) const;      // Error if this is no array, or a shorter one
  bool boolean_or(bool fallback) const { return null() ? fallback : boolean(); }
};

}  // namespace foe
