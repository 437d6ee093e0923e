// Parses templates. Private to this folder.
#pragma once

#include <string_view>

#include "jinja/ast.h"

namespace foe::jinja {

// Returns the statements of a template. Throws Error with the line and what was expected there.
Block parse_template(std::string_view source);

}  // namespace foe::jinja
