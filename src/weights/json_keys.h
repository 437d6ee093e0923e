// Reads single keys of a JSON object. The functions throw Error naming the key, what was expected and what was found.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"

namespace foe::keys {

// Returns null if the key is absent or its value is null, which Hugging Face writes for "the default".
inline const nlohmann::json* find(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline const nlohmann::json& require(const nlohmann::json& object, const char* key) {
  if (const nlohmann::json* value = find(object, key)) return *value;
  fail("{}: expected a value, got none", key);
}

inline int as_int(const nlohmann::json& value, const char* key) {
  constexpr int kMax = std::numeric_limits<int>::max();
  // The JSON library keeps a number beyond int64 as unsigned only, and any other non-negative number as both.
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= kMax
                                               : value.is_number_integer() && value.get<std::int64_t>() >= -kMax;
  if (!fits) fail("{}: expected an integer of at most {}, got {}", key, kMax, excerpt(value));
  return value.get<int>();
}

inline double as_double(const nlohmann::json& value, const char* key) {
  if (!value.is_number()) fail("{}: expected a number, got {}", key, excerpt(value));
  return value.get<double>();
}

inline bool as_bool(const nlohmann::json& value, const char* key) {
  if (!value.is_boolean()) fail("{}: expected true or false, got {}", key, excerpt(value));
  return value.get<bool>();
}

inline int get_int(const nlohmann::json& object, const char* key) {
  return as_int(require(object, key), key);
}

inline int get_int(const nlohmann::json& object, const char* key, int otherwise) {
  const nlohmann::json* value = find(object, key);
  return value ? as_int(*value, key) : otherwise;
}

inline bool get_bool(const nlohmann::json& object, const char* key, bool otherwise) {
  const nlohmann::json* value = find(object, key);
  return value ? as_bool(*value, key) : otherwise;
}

template <typename T>
T get_choice(const nlohmann::json& object, const char* key, T otherwise, std::initializer_list<T> choices) {
  const nlohmann::json* value = find(object, key);
  if (!value) return otherwise;
  std::string names;
  for (const T choice : choices) {
    if (*value == to_string(choice)) return choice;
    names += fmt::format("{}\"{}\"", names.empty() ? "" : " or ", to_string(choice));
  }
  fail("{}: expected {}, got {}", key, names, excerpt(*value));
}

inline double get_double(const nlohmann::json& object, const char* key, double otherwise) {
  const nlohmann::json* value = find(object, key);
  return value ? as_double(*value, key) : otherwise;
}

// Throws Error unless `object`, which messages call `name`, is an object without other keys than these.
inline void expect_only(const nlohmann::json& object, const std::string& name, const std::vector<std::string>& known) {
  if (!object.is_object()) fail("{}: expected an object, got {}", name, excerpt(object));
  for (const auto& [key, value] : object.items())
    if (std::ranges::find(known, key) == known.end())
      fail("{}: expected no key but {}, got {}", name, fmt::join(known, ", "), excerpt(nlohmann::json(key)));
}

// Runs `read`, whose messages name keys of an object, and puts that object's name before them.
template <typename Read>
void within(const std::string& name, const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    fail("{}.{}", name, error.what());
  }
}

// Writes a value that is not `otherwise`.
template <typename T>
void write_other(nlohmann::ordered_json& object, const char* key, const T& value,
                 const std::type_identity_t<T>& otherwise) {
  if (value != otherwise) object[key] = value;
}
inline void write_other(nlohmann::ordered_json& object, const char* key, const char* value, const char* otherwise) {
  write_other<std::string_view>(object, key, value, otherwise);
}

// A struct lists its keys once, in a function that calls visit(key, member) or, for an enumeration, visit(key, member,
// choices) for each. These visitors collect the names, read the keys that `object` has, and write those of `from` that
// differ from `other`.
struct KeyNames {
  template <typename V, typename T>
  void operator()(const char* key, V T::*) {
    names.push_back(key);
  }
  template <typename V, typename T>
  void operator()(const char* key, V T::*, std::initializer_list<V>) {
    names.push_back(key);
  }

  std::vector<std::string> names;
};

template <typename T>
struct KeyReader {
  void operator()(const char* key, int T::*member) const { to.*member = get_int(object, key, to.*member); }
  void operator()(const char* key, bool T::*member) const { to.*member = get_bool(object, key, to.*member); }
  void operator()(const char* key, double T::*member) const { to.*member = get_double(object, key, to.*member); }
  template <typename V>
  void operator()(const char* key, V T::*member, std::initializer_list<V> choices) const {
    to.*member = get_choice(object, key, to.*member, choices);
  }

  const nlohmann::json& object;
  T& to;
};

template <typename T>
struct KeyWriter {
  template <typename V>
  void operator()(const char* key, V T::*member) const {
    write_other(object, key, from.*member, other.*member);
  }
  template <typename V>
  void operator()(const char* key, V T::*member, std::initializer_list<V>) const {
    write_other(object, key, to_string(from.*member), to_string(other.*member));
  }

  nlohmann::ordered_json& object;
  const T &from, &other;
};

}  // namespace foe::keys
