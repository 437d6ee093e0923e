// Sets of characters, and how JSON strings spell them. Private to this folder.
#pragma once

#include <utility>
#include <vector>

#include "grammar/byte_automaton.h"

namespace foe {

// Ranges of code points, both ends included.
using CodePoints = std::vector<std::pair<char32_t, char32_t>>;

CodePoints complement(CodePoints set);

// Leads from one state to another by each character of the set, as it stands unescaped in a JSON string; a quote, a
// backslash and control characters by the shortest escape. Surrogates are no characters.
void add_characters(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, const CodePoints& set);

// Any JSON string, with all escapes that JSON has. Surrogates are escaped in pairs only.
ByteAutomaton make_string_automaton();

}  // namespace foe
