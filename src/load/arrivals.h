// When the requests of a benchmark are sent: a function of rates and a seed, fixed before the run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace foe {

// A rate that grows from the first request to the last, in requests per second.
struct RampUp {
  std::string strategy = "";  // linear, exponential, or empty: the rate does not grow
  double start = 0, end = 0;  // positive, start <= end
};

// Returns the rate at each of n requests, which follows from how many were sent before, as in vLLM.
std::vector<double> ramp_up_rates(const RampUp& ramp, std::size_t n);

// Returns when each request is sent, in seconds. The first is sent at 0. The gap before another has the mean 1 / its
// rate and is gamma distributed with the shape `burstiness` (1: a Poisson process; larger values are more even). With
// infinite rates all are sent at 0.
std::vector<double> arrival_times(const std::vector<double>& rates, double burstiness, std::uint64_t seed);

// A whole number of requests per second that a growing rate has reached.
struct RateChange {
  std::int64_t rps = 0;
  std::size_t request = 0;  // the first that is sent at this rate
};
// Returns the whole part of the first rate, and each whole number that ascending rates reach later.
std::vector<RateChange> rate_changes(const std::vector<double>& rates);

}  // namespace foe
