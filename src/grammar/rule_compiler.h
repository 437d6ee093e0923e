// Compiles grammars of rules: context-free ones. Private to this folder.
#pragma once

#include <string_view>

#include "grammar/nodes.h"

namespace foe {

// Compiles a grammar as rule_parser.h reads it. Each rule that is part of itself becomes an automaton with calls; the
// others become parts of these automata where they are small. A rule may begin with itself only plainly, as in
//   sum ::= sum "+" product | product
// Throws Error, with line and column where there is one, if the grammar is wrong or too large, allows no text, or if
// rules begin with each other in a circle.
GrammarProgram compile_rules(std::string_view text);

// Merges states of a rule's automaton behind which the same may follow, and finds which states repeat; not all where
// that would take long.
void simplify_rule(ByteAutomaton& rule);

// Fills in the heights of the states of all automata of rules, and `first` and `call_bytes`. No rule may begin with
// itself.
void finish_rules(GrammarProgram& program, std::vector<ByteAutomaton>& automata);

}  // namespace foe
