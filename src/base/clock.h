// The clock that durations are taken from.
#pragma once

#include <chrono>

namespace foe {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace foe
