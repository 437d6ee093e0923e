#include "kernels/peak.h"

#include <cmath>

#include <gtest/gtest.h>

#include "kernels/cpu.h"

namespace foe {
namespace {

// How fast is the machine's business: only that something was measured.
TEST(Peak, LimitsAreNumbers) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const double rate : {measure_fma_peak(pool, 1), measure_dot_peak(pool, 1), measure_read_bandwidth(pool, 1)}) {
      EXPECT_TRUE(std::isfinite(rate)) << rate;
      EXPECT_GT(rate, 0);
    }
    const TilePeaks peaks = measure_tile_peaks(pool, 1);
    for (const double rate : {peaks.flops_per_s, peaks.dots_per_s}) {
      EXPECT_TRUE(std::isfinite(rate)) << rate;
      EXPECT_EQ(rate > 0, tiles()) << rate;
    }
  }
}

}  // namespace
}  // namespace foe
