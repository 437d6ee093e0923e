// The random numbers of a workload, which are a function of its seed on any machine.
#pragma once

#include <cstdint>

#include "base/rng.h"

namespace foe {

// What numbers are used for. Each purpose has a sequence of its own.
enum class DrawsFor : std::uint64_t { kArrivals, kLengths, kTokens, kPrefix, kOrder };

class Draws {
 public:
  Draws(std::uint64_t seed, DrawsFor purpose)
      : seed_(random_bits(seed, static_cast<std::uint64_t>(purpose))), normal_seed_(mix64(seed_)) {}

  double unit() { return random_unit(seed_, next_++); }  // uniform in [0, 1)
  double normal() { return random_normal(normal_seed_, next_++); }
  int between(int low, int high);  // an integer, uniform in [low, high]
  // Gamma distributed with this shape > 0 and scale 1, so that mean and variance equal the shape.
  double gamma(double shape);

 private:
  std::uint64_t seed_, normal_seed_, next_ = 0;
};

}  // namespace foe
