// Sets of characters, and how JSON strings spell them. Private to this folder.
#pragma once

#include <utility>
#include <vector>

#include "grammar/byte_automaton.h"

namespace foe {

// Ranges of code points, both ends included.
using CodePoints = std::vector<std::pair<char32_t, char32_t>>;

CodePoints complement(CodePoints set);

// How characters are written: as they are, or as in a JSON string, where quotes, backslashes and control characters
// have their shortest escape.
enum class Spelling { kPlain, kJson };

// Adds edges that lead from one state to another by each character of the set. Surrogates in the set are ignored.
void add_characters(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, const CodePoints& set,
                    Spelling spelling = Spelling::kJson);

// Returns the automaton of all JSON strings, with all escapes that JSON has. Escaped surrogates come in pairs only.
ByteAutomaton make_string_automaton();

}  // namespace foe
