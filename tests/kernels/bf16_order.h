// The order in which tile registers multiply bf16 (kernels/products/bf16_dot-inl.h) as plain loops, with explicit
// flushing of subnormal numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace foe {

inline float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

// Returns sum + x(0) w(0) + x(1) w(1) + ... for k < depth. x and w are functions of k, and return numbers that bf16
// holds.
template <typename X, typename W>
float dot_in_bf16_order(float sum, int depth, X&& x, W&& w) {
  for (int begin = 0; begin < depth; begin += 32) {
    float chains[2] = {};
    for (int k = begin; k < begin + 32; ++k) {
      const float xk = k < depth ? x(k) : 0, wk = k < depth ? w(k) : 0;
      chains[k % 2] = flushed(std::fma(flushed(xk), flushed(wk), chains[k % 2]));
    }
    sum = flushed(sum + flushed(chains[0] + chains[1]));
  }
  return sum;
}

}  // namespace foe
