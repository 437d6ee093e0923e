// Compiles strings, numbers, and values that a schema lists. Private to this folder.
#pragma once

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "grammar/multiples.h"
#include "grammar/nodes.h"
#include "grammar/schema_keywords.h"

namespace foe {

// Returns the types that all mentions of `type` allow; if there are none, the types that the keywords are about.
std::set<std::string> allowed_types(const Keywords& keywords);

// Returns the range from the largest mention of `min` to the smallest mention of `max`.
CountRange count_range(const Keywords& keywords, std::string_view min, std::string_view max);

// Returns the texts, in ascending order, of the values that all mentions of enum and const list and that have one of
// the types. Throws Error if there are other keywords about values as well.
std::vector<std::string> literal_texts(const Keywords& keywords, const std::set<std::string>& types);

// What a schema says about null, booleans, strings or numbers. Equal ones share an automaton.
struct Scalar {
  std::string type;
  CountRange characters = {};              // strings
  std::vector<std::string> patterns = {};  // strings: as in JSON Schema; all else: must match the whole text
  std::vector<Multiple> multiples = {};    // numbers: what they are multiples of
  auto operator<=>(const Scalar&) const = default;
};

Scalar describe_scalar(const std::string& type, const Keywords& keywords);

// Adds the automata of scalars to a program. The constructor adds the one of all strings (kStringAutomaton).
class ScalarCompiler {
 public:
  explicit ScalarCompiler(GrammarProgram& program);
  decltype(GrammarNode::body) make(const Scalar& scalar);
  // Adds the automaton of a string, which counts its characters, and returns its number.
  std::uint32_t add_string(const Scalar& scalar);
  // Adds the automaton of the texts of two others, and returns its number.
  std::uint32_t both(std::uint32_t a, std::uint32_t b);

 private:
  std::uint32_t add(ByteAutomaton automaton);
  ByteAutomaton automaton_of(const Scalar& scalar, CountRange characters);

  AutomatonBudget budget_;
  GrammarProgram& program_;
};

}  // namespace foe
