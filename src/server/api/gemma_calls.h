// Reads calls as Gemma 4 writes them: call:get_weather{city:<|"|>Oslo<|"|>,days:3}. Private to this folder's .cc files.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "server/api/tool_syntax.h"

namespace foe {

// What is on both sides of a string, instead of quotes.
inline constexpr std::string_view kGemmaQuote = "<|\"|>";

// Returns the one call that the text is, or nothing if it is something else. Values are strings, numbers, true, false,
// null, lists and objects; a bare word is a string, and so is what the tool's schema has as one.
std::optional<std::vector<WrittenCall>> gemma_calls(std::string_view text, const ToolUse& use);

}  // namespace foe
