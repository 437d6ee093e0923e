// Runs templates. Private to this folder.
#pragma once

#include <ctime>
#include <string>

#include "jinja/ast.h"

namespace foe::jinja {

// Returns the output of a template with these variables; strftime_now returns `now` in local time. Throws Error, with
// the line, if the template raises an exception, uses something that is not supported, or exceeds a limit.
std::string evaluate(const Block& program, const nlohmann::ordered_json& variables, std::time_t now);

}  // namespace foe::jinja
