// Automata of texts that several things hold for. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/byte_automaton.h"

namespace foe {

// Returns the automaton of the texts that both accept. Where characters begin is what `a` says. Throws Error if this
// takes more than is left of the budget.
ByteAutomaton intersection(const ByteAutomaton& a, const ByteAutomaton& b, AutomatonBudget& budget);

bool accepts(const ByteAutomaton& automaton, std::string_view text);

// Whether any beginning of a text, but for whole texts that nothing can follow, goes on in infinitely many ways.
bool goes_on_for_ever(const ByteAutomaton& automaton);

}  // namespace foe
