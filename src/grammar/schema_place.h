// Reads the parts of a schema. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace foe {

// A schema, or a part of one, and its path for messages, such as "#/properties/a", in which long names are cut.
struct SchemaPlace {
  const nlohmann::ordered_json* value = nullptr;
  std::string path;

  SchemaPlace member(const std::string& name) const;
  SchemaPlace element(std::size_t index) const;
  // These throw Error, naming the place, if the value has another type.
  const nlohmann::ordered_json& object() const;
  const nlohmann::ordered_json& array() const;
  const std::string& string() const;
  double number() const;
  std::uint32_t count() const;  // an integer of at least 0; if it exceeds 32 bits, the largest one

  [[noreturn]] void wrong(std::string_view expected) const;  // "path: expected ..., got its value"
};

// Returns what `reference` ("#/$defs/a") points to. Throws Error, naming its place, if there is nothing.
SchemaPlace resolve(const nlohmann::ordered_json& root, const SchemaPlace& reference);

}  // namespace foe
