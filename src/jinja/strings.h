// The functions of Python's str, for UTF-8. Private to this folder. Functions with a budget throw Error if it is
// exceeded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace foe::jinja {

inline constexpr std::size_t kTextBytes = 64;  // the memory that a text takes in addition to its bytes

// str.isspace: Unicode's White_Space, and the four separators of ASCII.
bool is_python_space(char32_t code);
// str.isprintable, which decides what repr() escapes.
bool is_printable(char32_t code);

// Returns the bytes of the character at `position`; 1 if it is ill-formed.
std::size_t character_size(std::string_view text, std::size_t position);
std::size_t count_characters(std::string_view text, Budget& budget);

enum Sides { kLeft = 1, kRight = 2, kBothSides = 3 };
// Returns the text without white space or, if `of` is not null, without any of the characters in `*of`, at the given
// sides.
std::string_view strip(std::string_view text, Sides sides, const std::string* of, Budget& budget);

std::string to_upper(std::string_view text, Budget& budget);
std::string to_lower(std::string_view text, Budget& budget);
// Returns the text with the first character in upper case and the others in lower case.
std::string capitalize(std::string_view text, Budget& budget);
// str.title: a letter is in upper case if no letter is before it.
std::string title(std::string_view text, Budget& budget);
// Jinja's filter `title`: words begin after white space, a hyphen or an opening bracket.
std::string title_words(std::string_view text, Budget& budget);

// Returns the offset of the first `part` in text from `from` on, or npos. Takes linear time for all arguments.
std::size_t find(std::string_view text, std::string_view part, std::size_t from, Budget& budget);
std::string replace_all(std::string_view text, std::string_view old_part, std::string_view new_part, std::int64_t count,
                        Budget& budget);
// Cuts the text at the separator or, if that is null, at white space. Cuts at most `limit` times, unless that is
// negative, and from the right if `from_right`.
std::vector<std::string_view> split(std::string_view text, const std::string* separator, std::int64_t limit,
                                    bool from_right, Budget& budget);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends, Budget& budget);

}  // namespace foe::jinja
