// Reads the format of gpt-oss, harmony: an answer is several messages, each of which says on which channel it is, and
// to whom it goes. Private to this folder's .cc files.
//
//   <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json
//   <|message|>{...}<|call|>
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "server/api/answer_reader.h"

namespace foe {

// Returns the special tokens of the format.
const std::vector<std::string_view>& harmony_markers();

// Returns a reader to which the channel "analysis" is reasoning, messages to functions.NAME are calls if the request's
// tools allow them, and all others are content, as is a text that is not of this format. `tools` must outlive it.
std::unique_ptr<AnswerReader> make_harmony_reader(const ToolUse& tools, const ReasoningUse& reasoning);

}  // namespace foe
