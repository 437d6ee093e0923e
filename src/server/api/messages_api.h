// Anthropic's Messages API: its other parts are parse_messages_request() and the AnswerWriter of Api::kMessages.
#pragma once

#include <string>
#include <string_view>

#include "server/api/generation_request.h"

namespace foe {

// Takes the body of POST /v1/messages/count_tokens and returns that of its reply. Throws ApiError for a bad request.
// Any thread may call it.
std::string count_message_tokens(std::string_view body, const ServedModel& model);

}  // namespace foe
