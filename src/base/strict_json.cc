#include "base/strict_json.h"

#include <limits>
#include <set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {

using nlohmann::json;

namespace {

// Refuses what json::parse() would accept. This is a pass of its own, because with a callback json::parse() takes
// quadratic time in the number of objects.
class StrictChecker : public json::json_sax_t {
 public:
  StrictChecker(const std::string& source, std::size_t max_members) : source_(source), max_members_(max_members) {}

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
    if (!keys_.back().insert(key).second)
      fail("{}: expected every key once, got {} twice", source_, excerpt(json(std::move(key))));
    if (keys_.back().size() > max_members_)
      fail("{}: expected objects of at most {} members, got one of more", source_, max_members_);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    fail("{}: expected JSON, got: {}", source_, shorten(error.what()));
  }

 private:
  bool open() {
    if (keys_.size() >= kMaxJsonDepth)
      fail("{}: expected JSON nested at most {} deep, got deeper nesting", source_, kMaxJsonDepth);
    keys_.emplace_back();
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  const std::string& source_;
  std::size_t max_members_;
  std::vector<std::set<std::string>> keys_;  // the keys so far of each container around the current place
};

void check(std::string_view text, const std::string& source, std::size_t max_members) {
  // The library takes a NUL as the end of its input, and would ignore what follows.
  if (const auto nul = text.find('\0'); nul != text.npos) fail("{}: expected JSON, got a NUL at byte {}", source, nul);
  StrictChecker checker(source, max_members);
  json::sax_parse(text, &checker);
}

}  // namespace

json parse_strict_json(std::string_view text, const std::string& source) {
  check(text, source, std::numeric_limits<std::size_t>::max());
  return json::parse(text);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& source) {
  nlohmann::ordered_json value;
  parse_ordered_json(text, source, value);
  return value;
}

void parse_ordered_json(std::string_view text, const std::string& source, nlohmann::ordered_json& value) {
  check(text, source, kMaxOrderedMembers);
  // This is what ordered_json::parse() does, but here the caller destroys the value.
  nlohmann::detail::json_sax_dom_parser<nlohmann::ordered_json> parser(value);
  nlohmann::ordered_json::sax_parse(text, &parser);
}

std::string shorten(std::string text, std::size_t length) {
  if (text.size() <= length) return text;
  while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
  return text.substr(0, length) + "...";
}

std::string excerpt(const json& value) {
  return shorten(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace foe
