#include "weights/families/config_keys.h"

#include "weights/json_keys.h"

namespace foe {

using nlohmann::json;

const json* ConfigKeys::find(const char* key) const {
  read_.insert(key);
  const auto said = root_.find(key);
  if (said != root_.end()) return said->is_null() ? nullptr : &*said;
  return keys::find(defaults_, key);
}

bool ConfigKeys::has(const char* key) const {
  read_.insert(key);
  return keys::find(root_, key);
}

const json* ConfigKeys::value(const char* key) const {
  read_.insert(key);
  const json* said = keys::find(root_, key);
  return said ? said : keys::find(defaults_, key);
}

int ConfigKeys::integer(const char* key) const {
  const json* found = value(key);
  return keys::as_int(found ? *found : keys::require(root_, key), key);
}

int ConfigKeys::integer(const char* key, int otherwise) const {
  const json* found = value(key);
  return found ? keys::as_int(*found, key) : otherwise;
}

double ConfigKeys::number(const char* key) const {
  const json* found = value(key);
  return keys::as_double(found ? *found : keys::require(root_, key), key);
}

double ConfigKeys::number(const char* key, double otherwise) const {
  const json* found = value(key);
  return found ? keys::as_double(*found, key) : otherwise;
}

bool ConfigKeys::flag(const char* key, bool otherwise) const {
  const json* found = value(key);
  return found ? keys::as_bool(*found, key) : otherwise;
}

void ConfigKeys::expect(const char* key, const json& expected) const {
  const json* found = value(key);
  if (found && *found != expected) fail("{}: expected {}, got {}", key, expected.dump(), excerpt(*found));
}

void ConfigKeys::mark(const std::vector<std::string>& keys) const {
  read_.insert(keys.begin(), keys.end());
}

std::vector<std::string> ConfigKeys::unread() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : root_.items())
    if (!value.is_null() && !read_.contains(key)) names.push_back(key);
  return names;
}

}  // namespace foe
