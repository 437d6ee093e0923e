// JSON from files and requests that we do not trust: duplicate keys, deep nesting, bad UTF-8 and anything after the
// value are errors. The parsers throw Error, beginning with `source` (the file, for the reader of the message).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace foe {

constexpr int kMaxJsonDepth = 32;
constexpr std::size_t kMaxOrderedMembers = 1024;

nlohmann::json parse_strict_json(std::string_view text, const std::string& source);
// The same with members in the order of the text, and at most kMaxOrderedMembers in one object: looking one up, and so
// reading them, takes time for each other one.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& source);
// The same into `value`, which has a part of it where memory runs out.
void parse_ordered_json(std::string_view text, const std::string& source, nlohmann::ordered_json& value);

// Cut to so many bytes, by default to what fits an error message, between two characters.
std::string shorten(std::string text, std::size_t length = 160);

// `value` as JSON on one line, shortened.
std::string excerpt(const nlohmann::json& value);

}  // namespace foe
