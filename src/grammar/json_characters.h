// Sets of characters, and how JSON strings spell them. Private to this folder.
#pragma once

#include <utility>
#include <vector>

#include "grammar/byte_automaton.h"

namespace foe {

// Ranges of code points, both ends included.
using CodePoints = std::vector<std::pair<char32_t, char32_t>>;

CodePoints complement(CodePoints set);

// Adds edges that lead from one state to another by each character of the set, as it is written in a JSON string:
// unescaped or, for quotes, backslashes and control characters, with the shortest escape. Surrogates in the set are
// ignored.
void add_characters(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, const CodePoints& set);

// Returns the automaton of all JSON strings, with all escapes that JSON has. Escaped surrogates come in pairs only.
ByteAutomaton make_string_automaton();

}  // namespace foe
