// Which fields the bodies of the endpoints that run the model may have. No field that changes an answer is ignored in
// silence: a field is read, or it cannot change the answer, or it is refused unless its value asks for nothing.
#pragma once

#include <span>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "server/api/generation_request.h"

namespace foe {

enum class FieldUse {
  kRead,      // foe does what it says
  kNoEffect,  // what it says does not change the answer: accepted, and not read
  kRefused,   // foe cannot do it: accepted only with a value that asks for nothing
};

struct KnownField {
  std::string_view name;
  FieldUse use;
  // JSON: with kRefused a list of the values that ask for nothing, besides null, or empty if there is none; with
  // kNoEffect a value of the type that the field has.
  std::string_view values = {};
  std::string_view instead = {};  // kRefused: what to use instead
};

// The fields of an endpoint: those of its API, of vLLM's, and constraints as other servers write them. What fields_of()
// says of a field comes before what shared_fields() says, which are those of the endpoints that write texts.
std::span<const KnownField> shared_fields();
std::span<const KnownField> fields_of(Api api);

// Returns the entry of a field; null if the endpoint does not have it.
const KnownField* find_known_field(Api api, std::string_view name);

// Throws ApiError 400, with the field's name, for the first field of `object` that is refused or not known.
void check_fields(const nlohmann::ordered_json& object, Api api);

}  // namespace foe
