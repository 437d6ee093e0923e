#include "kernels/peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak.cc"
#include <hwy/foreach_target.h>

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// Independent chains: more than latency (4 or 5 cycles) times two pipes, fewer than registers.
constexpr int kChains = 12;

// Returns a value that depends on every operation, and sets `flops` to how many there were.
float fma_chains_kernel(int iterations, double& flops) {
  const DF d;
  const VF a = hn::Set(d, 0.999f), b = hn::Set(d, 0.001f);
  VF x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = hn::Set(d, static_cast<float>(i));
  for (int n = 0; n < iterations; ++n)
    for (int i = 0; i < kChains; ++i) x[i] = hn::MulAdd(x[i], a, b);
  for (int i = 1; i < kChains; ++i) x[0] = hn::Add(x[0], x[i]);
  flops = 2.0 * kVecLanes * kChains * iterations;
  return hn::GetLane(hn::SumOfLanes(d, x[0]));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(fma_chains_kernel);

}  // namespace

double measure_fma_peak(ThreadPool& pool) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRounds = 5;
  constexpr double kRoundSeconds = 0.02;
  double best = 0;
  std::vector<double> flops(pool.threads());
  std::vector<float> sinks(pool.threads());
  int iterations = 1 << 14;
  for (int round = 0; round < kRounds;) {
    const Clock::time_point start = Clock::now();
    pool.parallel_for(flops.size(),
                      [&](std::size_t i) { sinks[i] = HWY_DYNAMIC_DISPATCH(fma_chains_kernel)(iterations, flops[i]); });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds < kRoundSeconds / 2 && iterations < (1 << 29)) {  // still finding out how many it takes
      iterations *= 2;
      continue;
    }
    best = std::max(best, std::accumulate(flops.begin(), flops.end(), 0.0) / seconds);
    ++round;
  }
  volatile float keep = sinks[0];  // the chains must not be optimised away
  static_cast<void>(keep);
  return best;
}

}  // namespace foe
#endif
