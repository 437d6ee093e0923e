#include "text/schema_text.h"

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t kMaxBytes = 128 * 1024;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxMembers = 1000;  // of one object: json's ordered objects search linearly

// Refuses what json::parse would let pass.
class Checker : public json::json_sax_t {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(json::number_integer_t) override { return true; }
  bool number_unsigned(json::number_unsigned_t) override { return true; }
  bool number_float(json::number_float_t, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second) fail("expected every key once, got {} twice", json(key).dump().substr(0, 80));
    if (keys_.back().size() > kMaxMembers) fail("expected objects of at most {} members, got more", kMaxMembers);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    std::string message;  // which quotes bytes of the text
    append_lossy_utf8(message, std::string_view(error.what()).substr(0, 300), /*last=*/true);
    fail("expected JSON, got: {}", message);
  }

 private:
  bool open() {
    if (keys_.size() >= kMaxDepth) fail("expected JSON nested at most {} deep, got deeper nesting", kMaxDepth);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // so far, in each container around the current place
};

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

json parse_schema_text(std::string_view text) {
  if (text.size() > kMaxBytes) fail("expected a schema of at most {} bytes, got {}", kMaxBytes, text.size());
  // json takes a NUL for the end of its input.
  if (const auto nul = text.find('\0'); nul != text.npos) fail("expected JSON, got a NUL at byte {}", nul);
  Checker checker;
  json::sax_parse(text, &checker);
  return json::parse(text);
}

void SchemaPlace::wrong(std::string_view expected) const {
  std::string found = value->dump(-1, ' ', /*ensure_ascii=*/true);
  if (found.size() > 60) found = found.substr(0, 60) + "...";
  fail("{}: expected {}, got {}", path, expected, found);
}

SchemaPlace SchemaPlace::member(const std::string& name) const {
  return {&value->at(name), path + "/" + pointer_token(name)};
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
  if (!value->is_number_unsigned()) wrong("an integer from 0 on");
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(value->get<std::uint64_t>(), kMax));
}

SchemaPlace resolve(const json& root, const SchemaPlace& reference) {
  const std::string& target = reference.string();
  const bool plain = target == "#" || target.starts_with("#/");
  if (!plain || target.find('%') != std::string::npos) reference.wrong("\"#\" or \"#/...\" without %");
  try {
    return {&root.at(json::json_pointer(target.substr(1))), target};
  } catch (const json::exception&) {
    reference.wrong("a pointer to a part of the schema");
  }
}

}  // namespace foe
