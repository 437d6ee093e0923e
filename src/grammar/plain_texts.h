// Compiles constraints on texts that are not JSON. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/nodes.h"

namespace foe {

// Texts that a regular expression (pattern.h) matches as a whole. Throws Error if it is not one, has what automata
// cannot do, takes too many states, or matches no text.
GrammarProgram compile_regex(std::string_view pattern);

// The texts of a JSON array, of which none may be empty. Throws Error if it is not such an array.
GrammarProgram compile_choice(std::string_view texts);

}  // namespace foe
