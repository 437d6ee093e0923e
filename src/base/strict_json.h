// JSON from files and requests that are not trusted. Duplicate keys, nesting deeper than kMaxJsonDepth, ill-formed
// UTF-8 and anything after the value are errors. The parsers throw Error, whose message begins with `source` (for a
// file, its path).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace foe {

constexpr int kMaxJsonDepth = 32;
constexpr std::size_t kMaxOrderedMembers = 1024;

nlohmann::json parse_strict_json(std::string_view text, const std::string& source);
// The same, but objects keep the order of their members. An object may have at most kMaxOrderedMembers, because looking
// one up takes time for each of the others.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& source);
// The same into `value`. If memory runs out, this throws std::bad_alloc, and `value` has what was parsed until then.
void parse_ordered_json(std::string_view text, const std::string& source, nlohmann::ordered_json& value);

// Returns the text cut between two characters to at most `length` bytes, by default to what fits an error message.
std::string shorten(std::string text, std::size_t length = 160);

// Returns `value` as JSON on one line, shortened.
std::string excerpt(const nlohmann::json& value);

}  // namespace foe
