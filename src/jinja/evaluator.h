// Private to this folder.
#pragma once

#include <ctime>
#include <string>

#include "jinja/ast.h"

namespace foe::jinja {

// The text of a template with these variables; strftime_now tells `now` in local time. Throws Error with the line: what
// the template raised, what it cannot do, or which limit it is over.
std::string evaluate(const Block& program, const nlohmann::ordered_json& variables, std::time_t now);

}  // namespace foe::jinja
