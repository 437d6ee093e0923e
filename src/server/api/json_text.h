// Writes JSON as text. Private to this folder's .cc files.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace foe {

// Returns the value on one line. Tokens, and what an error quotes from a request, need not be valid UTF-8: ill-formed
// bytes are replaced.
inline std::string json_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace foe
