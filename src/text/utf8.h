// UTF-8 as Unicode defines it (chapter 3, table 3-7: no surrogates, no overlong forms, nothing beyond U+10FFFF), and
// two classes of characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace foe {

// What is at one position of a string of bytes.
struct Utf8Step {
  enum Kind : std::uint8_t {
    kValid,       // `size` bytes are the code point `code`
    kInvalid,     // `size` bytes are ill-formed: the longest beginning of a character, or one byte
    kIncomplete,  // the string ends inside a character, after `size` of its bytes
  };
  char32_t code = 0;
  std::uint32_t size = 0;
  Kind kind = kInvalid;
};

// Reads one character. Requires position < text.size().
Utf8Step read_utf8(std::string_view text, std::size_t position);

void append_utf8(std::string& out, char32_t code);

// Throws Error, with the offset of the first ill-formed byte, if there is one. `what` names the text in the message.
void check_utf8(std::string_view text, std::string_view what);

// Appends `bytes`, with U+FFFD for every ill-formed sequence (one for each maximal prefix of a character, as in
// browsers and Rust, or with `each_byte` one for each byte). Returns how many bytes were used. These are all, except,
// unless `last`, a character that is still incomplete.
std::size_t append_lossy_utf8(std::string& out, std::string_view bytes, bool last, bool each_byte = false);

// Whether the character has Unicode's property White_Space.
bool is_space(char32_t code);

// Whether a regular expression's \w matches the character: letters, marks, decimal digits, letter numbers, connector
// punctuation, joiners.
bool is_word(char32_t code);

}  // namespace foe
