// JSON Schema to a grammar. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/nodes.h"

namespace foe {

// Throws Error beginning with the place in the schema.
GrammarProgram compile_schema(std::string_view schema);

}  // namespace foe
