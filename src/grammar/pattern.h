// Compiles the regular expressions of JSON Schema's "pattern" (ECMA-262) to finite automata. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/byte_automaton.h"

namespace foe {

enum class PatternUse {
  kJsonString,  // JSON strings whose value has a match anywhere, as JSON Schema says; spelt as in add_characters()
  kWhole,       // texts that match as a whole, spelt as they are
};

// Returns the automaton of a pattern. Supported are characters and their escapes, classes, \d \w \s (ASCII digits and
// words), groups, alternatives, greedy and lazy repeats, ^ and $. Throws Error if the pattern is not a regular
// expression, has what automata cannot do (look-around, back references) or \b, \p or flags, or takes too many states.
ByteAutomaton compile_pattern(std::string_view pattern, PatternUse use, CountRange characters, AutomatonBudget& budget);

}  // namespace foe
