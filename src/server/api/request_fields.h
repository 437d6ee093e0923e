// Reading typed fields of a request's JSON. A field that is absent or null has its default; one of the wrong type or
// out of its range is an ApiError 400 that names it. Private to this folder's .cc files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/http/api_error.h"

namespace foe {

// JSON whose destruction needs no memory. The library's own moves all values to a list first, and ends the program if
// there is no memory for that, as after a body that was too much.
struct JsonBody : nlohmann::ordered_json {
  ~JsonBody();
};

// The body as an object, its members in their order. `body` may be any bytes.
JsonBody parse_object(std::string_view body);

// The field, unless it is absent or null.
const nlohmann::ordered_json* find_field(const nlohmann::ordered_json& object, const char* name);

bool read_bool(const nlohmann::ordered_json& object, const char* name, bool otherwise);
int read_int(const nlohmann::ordered_json& object, const char* name, int low, int high, int otherwise);
float read_float(const nlohmann::ordered_json& object, const char* name, float otherwise);
// A string or a list of them, at most `most`, each of 1 to `max_bytes` bytes.
std::vector<std::string> read_strings(const nlohmann::ordered_json& object, const char* name, std::size_t most,
                                      std::size_t max_bytes);
// A list of at most `most` ids in [0, vocab_size).
std::vector<std::int32_t> read_ids(const nlohmann::ordered_json& list, const char* name, std::size_t most,
                                   int vocab_size);

}  // namespace foe
