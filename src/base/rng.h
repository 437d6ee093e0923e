// Counter-based random numbers. Each number is a pure function of (seed, counter), so a sampler that is restarted after
// a crash, or a training run that resumes, draws the same numbers without a saved state.
#pragma once

#include <cstdint>

namespace foe {

// SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
constexpr std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// Returns 64 random bits.
constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint64_t counter) {
  return mix64(mix64(seed + 0x9e3779b97f4a7c15ull) ^ (counter * 0x9e3779b97f4a7c15ull + 0x9e3779b97f4a7c15ull));
}

// Returns a number that is uniform in [0, 1), with 53 random bits.
constexpr double random_unit(std::uint64_t seed, std::uint64_t counter) {
  return static_cast<double>(random_bits(seed, counter) >> 11) * 0x1.0p-53;
}

// Returns a standard normal number, by the Box-Muller method from two draws with the same counter.
double random_normal(std::uint64_t seed, std::uint64_t counter);

}  // namespace foe
