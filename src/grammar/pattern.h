// Compiles the regular expressions of JSON Schema's "pattern" (ECMA-262) to finite automata. Private to this folder.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "grammar/byte_automaton.h"
#include "grammar/json_characters.h"
#include "grammar/pattern_syntax.h"

namespace foe {

enum class PatternUse {
  kJsonString,  // JSON strings whose value has a match anywhere, as JSON Schema says; spelt as in add_characters()
  kWhole,       // texts that match as a whole, spelt as they are
};

// Returns the automaton of a pattern. Supported are characters and their escapes, classes, \d \w \s (ASCII digits and
// words), groups, alternatives, greedy and lazy repeats, ^ and $. Throws Error if the pattern is not a regular
// expression, has what automata cannot do (look-around, back references) or \b, \p or flags, or takes too many states.
ByteAutomaton compile_pattern(std::string_view pattern, PatternUse use, CountRange characters, AutomatonBudget& budget);

// Adds edges that lead from a state through a text of a rule, and returns the state at the end.
using AddRule = std::function<std::uint32_t(ByteNfa& nfa, std::uint32_t from, std::uint32_t rule)>;

// Adds edges to `nfa` that lead from `from` through a match of `node`, and returns the state at the end. Every copy of
// a repeated part adds a state, so that the limit on states also stops repeats of an empty part.
std::uint32_t add_pattern(ByteNfa& nfa, std::uint32_t from, const PatternNode& node, Spelling spelling,
                          const AddRule& add_rule = {});

}  // namespace foe
