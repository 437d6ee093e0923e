// Upper and lower case as Unicode maps it, where a character may become up to three. Private to this folder.
#pragma once

#include <string>

namespace foe::jinja {

std::u32string upper_of(char32_t code);
std::u32string title_of(char32_t code);
// Without its surroundings, which decide about a sigma at the end of a word.
std::u32string lower_of(char32_t code);

bool is_cased(char32_t code);
// Whether rules that look for the letter before or behind a place look through the character.
bool is_case_ignorable(char32_t code);

}  // namespace foe::jinja
