// Reads typed fields of a request's JSON. A field that is absent or null has its default. A field of the wrong type or
// out of its range throws ApiError 400, which names it. Private to this folder's .cc files.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/http/api_error.h"

namespace foe {

// JSON that can be destroyed when there is no memory left, as may be the case after a large body. The library's own
// destructor moves all values to a list first, and ends the program if there is no memory for that.
struct JsonBody : nlohmann::ordered_json {
  ~JsonBody();
};

// Returns the body as an object whose members are in the order of the text. `body` may be any bytes.
JsonBody parse_object(std::string_view body);

// Returns the field, or null if it is absent or null.
const nlohmann::ordered_json* find_field(const nlohmann::ordered_json& object, const char* name);

// Refuses members of a field's object that would be ignored: all but `known`, unless they are null.
void require_members(const std::string& field, const nlohmann::ordered_json& object,
                     std::initializer_list<std::string_view> known);

bool read_bool(const nlohmann::ordered_json& object, const char* name, bool otherwise);
int read_int(const nlohmann::ordered_json& object, const char* name, int low, int high, int otherwise);
float read_float(const nlohmann::ordered_json& object, const char* name, float otherwise);
// Reads a string, or a list of at most `most` strings, each of 1 to `max_bytes` bytes.
std::vector<std::string> read_strings(const nlohmann::ordered_json& object, const char* name, std::size_t most,
                                      std::size_t max_bytes);
// Reads a list of at most `most` ids in [0, vocab_size).
std::vector<std::int32_t> read_ids(const nlohmann::ordered_json& list, const char* name, std::size_t most,
                                   int vocab_size);

}  // namespace foe
