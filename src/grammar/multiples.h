// The multiples of a number, for multipleOf. Private to this folder.
#pragma once

#include <compare>
#include <cstdint>

#include "grammar/byte_automaton.h"
#include "grammar/schema_place.h"

namespace foe {

// The multiples of step / 10^decimals; if there are decimals, ten does not divide the step.
struct Multiple {
  std::uint64_t step = 1;
  std::uint32_t decimals = 0;
  auto operator<=>(const Multiple&) const = default;
};

// Reads the value of multipleOf. Throws Error if it is no number above 0, has more than 6 digits behind the point, or
// has a step that takes too many states.
Multiple multiple_of(const SchemaPlace& place);

// Returns the automaton of the decimal numbers, with any zeros in front of them and without an exponent, that are
// multiples. They have no point if there are no decimals, and otherwise at most so many digits behind it.
ByteAutomaton multiples_automaton(const Multiple& multiple, AutomatonBudget& budget);

}  // namespace foe
