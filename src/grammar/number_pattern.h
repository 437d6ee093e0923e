// Writes numbers within bounds as regular expressions. Private to this folder.
#pragma once

#include <optional>
#include <string>

namespace foe {

struct NumberBound {
  double value = 0;
  bool exclusive = false;
};

// All numbers have a bounded length. Integers fit into 64 bits, and other numbers into a double.

// Returns a pattern of the JSON integers within the bounds, with at most 18 digits and without fraction, exponent or
// -0. Throws Error if a bound is beyond 10^15.
std::string integer_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high);

// Returns a pattern of the JSON numbers within the bounds, with at most 18 digits before and after the point and 2 of
// an exponent. If there are bounds, numbers have no exponent, no -0, and at most 6 digits after the point, or none if a
// bound is beyond 10^9. Throws Error if a bound is beyond 10^15.
std::string number_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high);

}  // namespace foe
