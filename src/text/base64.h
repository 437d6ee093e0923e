// Base64 (RFC 4648, section 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace foe {

// Returns the text of these bytes, with padding.
std::string encode_base64(std::string_view bytes);

// Returns the bytes, or nothing if `text` is not base64 with padding.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace foe
