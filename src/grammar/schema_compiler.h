// Compiles a JSON schema. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/nodes.h"

namespace foe {

// Returns the finished program. With `open_objects`, objects for which the schema lists properties may have others,
// too, where it does not say. Throws Error, beginning with the place in the schema, if the schema is not valid or not
// supported.
GrammarProgram compile_schema(std::string_view schema, bool open_objects);

}  // namespace foe
