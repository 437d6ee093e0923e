#include "load/arrivals.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "load/draws.h"

namespace foe {

std::vector<double> ramp_up_rates(const RampUp& ramp, std::size_t n) {
  FOE_CHECK(ramp.start > 0 && ramp.start <= ramp.end, "from {} to {}", ramp.start, ramp.end);
  std::vector<double> rates(n, ramp.start);
  for (std::size_t i = 0; i < n; ++i) {
    const double progress = static_cast<double>(i) / static_cast<double>(std::max<std::size_t>(n - 1, 1));
    if (ramp.strategy == "exponential")
      rates[i] *= std::pow(ramp.end / ramp.start, progress);
    else
      rates[i] += (ramp.end - ramp.start) * progress;
  }
  return rates;
}

std::vector<double> arrival_times(const std::vector<double>& rates, double burstiness, std::uint64_t seed) {
  std::vector<double> times(rates.size(), 0.0);
  Draws draws(seed, DrawsFor::kArrivals);
  for (std::size_t i = 1; i < times.size(); ++i)
    times[i] = times[i - 1] + draws.gamma(burstiness) / burstiness / rates[i];
  return times;
}

std::vector<RateChange> rate_changes(const std::vector<double>& rates) {
  std::vector<RateChange> changes;
  for (std::size_t i = 0; i < rates.size(); ++i) {
    const auto whole = static_cast<std::int64_t>(rates[i]);
    if (changes.empty()) changes.push_back({whole, i});
    while (changes.back().rps < whole) changes.push_back({changes.back().rps + 1, i});
  }
  return changes;
}

}  // namespace foe
