#include "base/rng.h"

#include <cmath>
#include <numbers>

namespace foe {

double random_normal(std::uint64_t seed, std::uint64_t counter) {
  const double u = 1.0 - random_unit(seed, 2 * counter);  // in (0, 1]: the logarithm is finite
  const double v = random_unit(seed, 2 * counter + 1);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace foe
