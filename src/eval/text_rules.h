// What the prompts of tasks do to texts, with the rules of Python's str: lm-evaluation-harness, whose prompts these
// are, is written in it. Texts are UTF-8. A character whose other case is several characters (such as the German sharp
// s) stays as it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace foe {

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::string_view strip(std::string_view text);

// Returns the number of characters (code points).
std::size_t count_characters(std::string_view text);
std::string_view without_last_character(std::string_view text);

// str.capitalize(): the first character in title case, all others in lower case.
std::string capitalise(std::string_view text);
// The first character in lower case.
std::string lower_first(std::string_view text);

std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
// Removes every shortest "[...]" within a line, as re.sub(r"\[.*?\]", "", text) does.
std::string remove_brackets(std::string_view text);

}  // namespace foe
