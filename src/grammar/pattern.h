// Regular expressions as JSON Schema's "pattern" writes them (ECMA-262), run as a finite automaton. Private to this
// folder.
#pragma once

#include <string_view>

#include "grammar/byte_automaton.h"

namespace foe {

enum class PatternUse {
  kJsonString,  // JSON strings whose value has a match anywhere, as JSON Schema says; spelled as add_characters does
  kWhole,       // the plain texts that match as a whole
};

// Supported: characters and their escapes, classes, \d \w \s (ASCII digits and words), groups, alternatives, greedy and
// lazy repeats, ^ and $. Throws Error for what is no regular expression, what no automaton can run (look-around, back
// references), \b, \p and flags, and what takes too many states.
ByteAutomaton compile_pattern(std::string_view pattern, PatternUse use, CountRange characters, AutomatonBudget& budget);

}  // namespace foe
