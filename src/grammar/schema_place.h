// Reads the parts of a schema. Private to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/error.h"

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
  // Returns what `make` returns. An Error that it throws names this place, unless it names one already.
  template <typename F>
  auto blamed_for(const F& make) const {
    try {
      return make();
    } catch (const Error& error) {
      if (std::string_view(error.what()).starts_with('#')) throw;
      fail("{}: {}", path, error.what());
    }
  }
};

// The whole schema, which must outlive this.
class WholeSchema {
 public:
  explicit WholeSchema(const nlohmann::ordered_json& root) : root_(root) { find_anchors(root); }
  const nlohmann::ordered_json& root() const { return root_; }
  // Returns what `reference` ("#/$defs/a", "#anchor") points to. Throws Error, naming its place, if there is nothing.
  SchemaPlace resolve(const SchemaPlace& reference) const;

 private:
  void find_anchors(const nlohmann::ordered_json& schema);

  const nlohmann::ordered_json& root_;
  std::map<std::string, const nlohmann::ordered_json*> anchors_;  // the first schema with each name
};

}  // namespace foe
