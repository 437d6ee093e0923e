// Numbers within bounds as regular expressions. Private to this folder.
#pragma once

#include <optional>
#include <string>

namespace foe {

struct NumberBound {
  double value = 0;
  bool exclusive = false;
};

// Every number here is of bounded length, fits 64 bits if it is an integer, and a double else.

// JSON's integers in the bounds, of at most 18 digits, without fraction, exponent or -0. Throws Error if a bound is
// past 10^15.
std::string integer_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high);

// JSON's numbers, with at most 18 digits before and behind the point and 2 of an exponent. In bounds they have no
// exponent, no -0, and 6 digits behind the point, or none if a bound is past 10^9. Throws Error as above.
std::string number_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high);

}  // namespace foe
