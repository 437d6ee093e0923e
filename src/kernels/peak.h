// Measures the limits of this machine: how fast its widest f32 fused multiply-adds and integer dot products are with
// all operands in registers, and how fast memory can be read. To be called in the same process as what is compared with
// them, because clock rates and other programs on the machine differ from run to run.
#pragma once

#include <algorithm>

#include "base/thread_pool.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// Returns the FLOP/s (an FMA counts 2 per lane) of all threads of the pool together: the best of `rounds` of about 20
// ms each. Each thread is measured by its own processor time, so that sharing a core for a moment does not lower the
// result.
double measure_fma_peak(ThreadPool& pool, int rounds = 5);

// The same for products of 8-bit integers with sums in 32 bits.
double measure_dot_peak(ThreadPool& pool, int rounds = 5);

// Returns the bytes/s that all threads of the pool together read from a buffer of 256 MB, far more than caches hold:
// the best of at least one of `rounds`. It is measured by the clock, because threads that run one after the other do
// not share the bandwidth.
double measure_read_bandwidth(ThreadPool& pool, int rounds = 5);

// The peak of tile registers (kernels/products/amx.h): of bf16 in FLOP/s and of 8-bit integers in operations/s; both
// are 0 if there are none. The tiles hold various numbers, because processors multiply zeros faster, as these take less
// power.
struct TilePeaks {
  double flops_per_s = 0, dots_per_s = 0;
};
TilePeaks measure_tile_peaks(ThreadPool& pool, int rounds = 5);

struct MachineLimits {
  double read_bytes_per_s = 0, flops_per_s = 0, dots_per_s = 0;
  TilePeaks tiles = {};

  // Returns the peak of products of many rows with weights in this format, in operations/s.
  double of_products(WeightFormat format) const {
    if (in_parts(format)) return dots_per_s;  // tiles do not multiply these
    if (quantised(format)) return std::max(dots_per_s, tiles.dots_per_s);
    return format == WeightFormat::kBF16xBF16 ? std::max(flops_per_s, tiles.flops_per_s) : flops_per_s;
  }
};
MachineLimits measure_limits(ThreadPool& pool);

}  // namespace foe
