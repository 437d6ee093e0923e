// Strings, numbers, and values that a schema lists. Private to this folder.
#pragma once

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "grammar/nodes.h"
#include "grammar/schema_keywords.h"

namespace foe {

// The types that `type` allows in all its mentions; without one, those that the keywords are about.
std::set<std::string> allowed_types(const Keywords& keywords);

// From the largest of the one keyword to the smallest of the other.
CountRange count_range(const Keywords& keywords, std::string_view min, std::string_view max);

// The values of all mentions of enum and const that have one of the types, in ascending order. Throws Error if other
// keywords say something as well.
std::vector<std::string> literal_texts(const Keywords& keywords, const std::set<std::string>& types);

// What tells null, booleans, strings and numbers of one schema from those of another.
struct Scalar {
  std::string type;
  CountRange characters;               // strings
  std::optional<std::string> pattern;  // strings: as in JSON Schema; numbers: of the whole text
  auto operator<=>(const Scalar&) const = default;
};

Scalar describe_scalar(const std::string& type, const Keywords& keywords);

// Adds the automata of scalars to a program, at first the one of all strings.
class ScalarCompiler {
 public:
  explicit ScalarCompiler(GrammarProgram& program);
  decltype(GrammarNode::body) make(const Scalar& scalar);

 private:
  AutomatonBudget budget_;
  GrammarProgram& program_;
};

}  // namespace foe
