// Writes numbers within bounds as regular expressions. Private to this folder.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace foe {

// Integers as wide as those of 64 bits, with and without a sign.
__extension__ using WideInteger = __int128;

struct NumberBound {
  double value = 0;
  bool exclusive = false;
  std::optional<WideInteger> integer = {};  // the value, if it is written as an integer of 64 bits
};

// What a schema says of a number: all of these hold.
struct NumberBounds {
  std::vector<NumberBound> low, high;
};

// All numbers have a bounded length. Integers fit into 64 bits, and other numbers into a double.

// Returns a pattern of the JSON integers within the bounds, without fraction, exponent or -0. Where there is no bound
// they have at most 18 digits, if the other bound allows; and they are at least -2^63 and less than 2^64. Throws Error
// if a bound leaves none of these.
std::string integer_pattern(const NumberBounds& bounds);

// Returns a pattern of the JSON numbers within the bounds, with at most 18 digits before and after the point. Without
// bounds they may have an exponent of 2 digits. If there is a bound within 10^18, they have no -0, at most 18 digits,
// and at most 6 of them after the point, or none if a bound is beyond 10^9. Throws Error if a bound leaves no number
// within 10^18.
std::string number_pattern(const NumberBounds& bounds);

}  // namespace foe
