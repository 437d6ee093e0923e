// Reads calls as models write them that were trained on Python: [get_weather(city='Oslo', days=3), now()]. Private to
// this folder's .cc files.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "server/api/tool_syntax.h"

namespace foe {

// Returns the calls in a list, whose arguments are named and literals: strings, numbers, True, False, None, lists and
// dicts. Nothing if the text is something else.
std::optional<std::vector<WrittenCall>> python_calls(std::string_view text, const ToolUse& use);

// Whether the text may go on such that python_calls() returns calls of it. May be true where it is not so.
bool may_begin_python_calls(std::string_view text);

}  // namespace foe
