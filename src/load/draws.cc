#include "load/draws.h"

#include <cmath>

#include "base/check.h"

namespace foe {

int Draws::between(int low, int high) {
  FOE_CHECK(low <= high, "from {} to {}", low, high);
  return low + static_cast<int>(unit() * (static_cast<double>(high) - low + 1));
}

// Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; for shapes below 1 their section 6.
double Draws::gamma(double shape) {
  if (shape < 1) {
    const double larger = gamma(shape + 1);
    return larger * std::pow(1 - unit(), 1 / shape);
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = normal(), v = std::pow(1 + c * x, 3), u = 1 - unit();
    if (v > 0 && std::log(u) < x * x / 2 + d * (1 - v + std::log(v))) return d * v;
  }
}

}  // namespace foe
