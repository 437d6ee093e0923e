// POST /tokenize and POST /detokenize: text to ids and back, with the tokenizer of the served model.
#pragma once

#include <string>
#include <string_view>

#include "server/api/generation_request.h"

namespace foe {

// Both take the body of a request and return that of its reply. They throw ApiError for a bad request. Any thread may
// call them.
std::string tokenize(std::string_view body, const ServedModel& model);
std::string detokenize(std::string_view body, const ServedModel& model);

}  // namespace foe
