// POST /tokenize and POST /detokenize: text to ids and back, as the served model reads it.
#pragma once

#include <string>
#include <string_view>

#include "server/api/generation_request.h"

namespace foe {

// Body in, body out. Both throw ApiError.
std::string tokenize(std::string_view body, const ServedModel& model);
std::string detokenize(std::string_view body, const ServedModel& model);

}  // namespace foe
