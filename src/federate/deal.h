// Deals the experts of a layer to groups of equal size, so that tokens lose as little as possible of what they chose:
// experts that are chosen together belong in different groups.
#pragma once

#include <cstdint>
#include <vector>

#include "federate/choices.h"

namespace foe {

// Returns the group of each expert: E / H in each of `groups`, which must divide E, with the least lost weight
// (lost() in choices.h) that the search finds. Groups are numbered by their first experts. Few experts, with at most
// kExactDeals ways to deal them, are dealt in the best way there is, by branch and bound. Otherwise experts are dealt
// one by one, those with the largest weights first and each where it costs least; then pairs of experts trade places as
// long as one of these trades lowers the cost. That is done again from random deals, which `seed` decides, and the best
// outcome counts. The result is a pure function of the arguments.
std::vector<int> deal_experts(const Choices& choices, int groups, std::uint64_t seed = 0);

inline constexpr double kExactDeals = 20000;

}  // namespace foe
