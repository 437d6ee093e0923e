// The keys of a config.json while a family of models is read from it (family.h). Remembers which were read, so that
// what nobody has read can be refused or noted.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace foe {

// Not for several threads. All functions throw Error naming the key, what was expected and what was found. A key with
// the value null is as good as absent, but for find().
class ConfigKeys {
 public:
  // `root` is an object, and `defaults` an object with what the family implies for keys that are absent. Both must
  // outlive this.
  ConfigKeys(const nlohmann::json& root, const nlohmann::json& defaults) : root_(root), defaults_(defaults) {}

  // The value of the file, or if the file does not have the key, that of the defaults. Null if neither has it, and if
  // the file says null, with which a family's window or cap is switched off.
  const nlohmann::json* find(const char* key) const;
  // The same, but null is as good as absent.
  const nlohmann::json* value(const char* key) const;
  // Whether the file says it, with another value than null.
  bool has(const char* key) const;

  // Without `otherwise`, a key that neither the file nor the defaults have is an error.
  int integer(const char* key) const;
  int integer(const char* key, int otherwise) const;
  double number(const char* key) const;
  double number(const char* key, double otherwise) const;
  bool flag(const char* key, bool otherwise = false) const;
  // Throws Error unless the key is absent, or has this value: the family computes nothing else.
  void expect(const char* key, const nlohmann::json& value) const;

  // Says that these keys are read by someone else.
  void mark(const std::vector<std::string>& keys) const;
  const nlohmann::json& root() const { return root_; }
  // The keys of the file that nobody has read and whose value is not null.
  std::vector<std::string> unread() const;

 private:
  const nlohmann::json& root_;
  const nlohmann::json& defaults_;
  mutable std::set<std::string, std::less<>> read_;
};

// Throws Error for the first key that nobody has read, that changes what some family of models computes, and whose
// value is not the one with which it changes nothing. Returns the keys that are not known at all; what is known to be
// without effect on answers is passed over.
std::vector<std::string> check_unread_keys(const ConfigKeys& keys, std::string_view model_type);

}  // namespace foe
