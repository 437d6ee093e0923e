// The byte-level alphabet of GPT-2's vocabulary: a printable character for each byte, so that any bytes can be written
// as JSON text. Printable Latin-1 stands for itself, the other 68 bytes for U+0100 to U+0143 in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace foe {

// The bytes that `token` (valid UTF-8) stands for; nothing if it has a character outside the alphabet.
std::optional<std::string> from_byte_level(std::string_view token);

}  // namespace foe
