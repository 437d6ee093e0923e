// Writes JSON as text. Private to this folder's .cc files.
#pragma once

#include <string>
#include <utility>

#include <nlohmann/json.hpp>

namespace foe {

// Returns the value on one line. Tokens, and what an error quotes from a request, need not be valid UTF-8: ill-formed
// bytes are replaced.
inline std::string json_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// Returns the text of an object, which has members, with one more of them.
inline std::string with_member(std::string object, const char* name, const std::string& value) {
  object.pop_back();
  return object + ",\"" + name + "\":" + value + '}';
}
// The same with a receipt, if there is one.
inline std::string with_receipt(std::string object, const std::string& receipt) {
  return receipt.empty() ? object : with_member(std::move(object), "receipt", receipt);
}

}  // namespace foe
