// The byte-level alphabet of GPT-2's vocabulary. It has a printable character for each byte, so that any bytes can be
// written as JSON text: printable Latin-1 characters stand for themselves, and U+0100 to U+0143 for the other 68 bytes
// in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace foe {

// Returns the bytes that `token` (valid UTF-8) stands for, or nothing if it has a character outside the alphabet.
std::optional<std::string> from_byte_level(std::string_view token);

// Returns the characters that stand for `bytes`.
std::string to_byte_level(std::string_view bytes);

}  // namespace foe
