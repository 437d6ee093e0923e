// What Python's str does, on UTF-8. Private to this folder. Upper and lower case are Unicode's simple mappings: a
// character becomes one character ("ß" stays "ß", where Python's upper() gives "SS").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace foe::jinja {

inline constexpr std::size_t kTextBytes = 64;  // what a text takes beside its bytes

// str.isspace: Unicode's White_Space and the four separators of ASCII.
bool is_python_space(char32_t code);
// str.isprintable, which decides what repr() escapes.
bool is_printable(char32_t code);

// Bytes of the character at `position`; one if it is ill-formed.
std::size_t character_size(std::string_view text, std::size_t position);
std::size_t count_characters(std::string_view text, Budget& budget);

enum Sides { kLeft = 1, kRight = 2, kBothSides = 3 };
// Without white space, or without any of the characters in `*of`, at the given sides.
std::string_view strip(std::string_view text, Sides sides, const std::string* of, Budget& budget);

std::string to_upper(std::string_view text, Budget& budget);
std::string to_lower(std::string_view text, Budget& budget);
// The first character in upper case, the others in lower case.
std::string capitalize(std::string_view text, Budget& budget);
// str.title: each letter after something that is no letter.
std::string title(std::string_view text, Budget& budget);
// The filter: each word after white space, a hyphen or an opening bracket.
std::string title_words(std::string_view text, Budget& budget);

// The offset of `part` in text[from..], or npos. Takes linear time, whatever the two are.
std::size_t find(std::string_view text, std::string_view part, std::size_t from, Budget& budget);
std::string replace_all(std::string_view text, std::string_view old_part, std::string_view new_part, std::int64_t count,
                        Budget& budget);
// At most `limit` cuts unless that is negative; at white space without a separator; from the right if asked.
std::vector<std::string_view> split(std::string_view text, const std::string* separator, std::int64_t limit,
                                    bool from_right, Budget& budget);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends, Budget& budget);

}  // namespace foe::jinja
