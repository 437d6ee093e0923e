// The weights of attention in bf16 before they are rounded (weight16() in kernels/formats/bf16_weight-inl.h), as
// scalars.
#pragma once

#include <algorithm>
#include <cmath>

#include "bf16_order.h"

namespace foe {

// Returns 2^y with the rounding of weight16().
inline float unrounded_weight(float y) {
  y = std::max(-127.0f, flushed(y));
  const float n = std::floor(y);
  float r = y - n;
  if (static_cast<double>(r) + static_cast<double>(n) > y) r = std::nextafter(r, 0.0f);  // rounded down
  float p = std::fma(0.0135341678f, r, 0.0520114601f);
  for (const float next : {0.241442755f, 0.693003833f, 1.00000262f}) p = std::fma(p, r, next);
  return flushed(std::ldexp(p, static_cast<int>(n)));
}

}  // namespace foe
