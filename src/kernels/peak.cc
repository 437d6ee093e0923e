#include "kernels/peak.h"

#include <algorithm>
#include <chrono>
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
  constexpr int kIterations = 4'000'000, kRounds = 5;
  double best = 0;
  std::vector<double> flops(pool.threads());
  std::vector<float> sinks(pool.threads());
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point start = Clock::now();
    pool.parallel_for(flops.size(), [&](std::size_t i) {
      sinks[i] = HWY_DYNAMIC_DISPATCH(fma_chains_kernel)(kIterations, flops[i]);
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    double total = 0;
    for (const double f : flops) total += f;
    best = std::max(best, total / seconds);
  }
  volatile float keep = sinks[0];  // the chains must not be optimised away
  static_cast<void>(keep);
  return best;
}

}  // namespace foe
#endif
