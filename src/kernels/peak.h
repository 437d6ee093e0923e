// The machine's ceilings: what the widest f32 fused multiply-adds and integer dot products reach with every operand in
// a register, and how fast memory streams. Measured in the same process as whatever is compared with them, since clocks
// and neighbours differ from run to run.
#pragma once

#include <algorithm>

#include "base/thread_pool.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// FLOP/s (an FMA counts 2 per lane) of all threads of the pool together, each by its own processor time, so that a
// moment on a shared core does not lower it: the best of `rounds`, of about 20 ms each.
double measure_fma_peak(ThreadPool& pool, int rounds = 5);

// The same of products of 8-bit integers with sums in 32 bits.
double measure_dot_peak(ThreadPool& pool, int rounds = 5);

// Bytes/s that all threads of the pool together read from a buffer of 256 MB, far more than caches hold: the best of
// `rounds`, at least one, by the clock: threads that run one after the other do not share the memory's width.
double measure_read_bandwidth(ThreadPool& pool, int rounds = 5);

// The same of tile registers (kernels/products/amx.h): of bf16 in FLOP/s and of 8-bit integers in operations/s, both 0
// where there are none. Tiles hold numbers of all sizes: of zeros processors multiply more, as these take less power.
struct TilePeaks {
  double flops_per_s = 0, dots_per_s = 0;
};
TilePeaks measure_tile_peaks(ThreadPool& pool, int rounds = 5);

struct MachineLimits {
  double read_bytes_per_s = 0, flops_per_s = 0, dots_per_s = 0;
  TilePeaks tiles = {};

  // Of products of many rows with weights in this format.
  double of_products(WeightFormat format) const {
    if (quantised(format)) return std::max(dots_per_s, tiles.dots_per_s);
    return format == WeightFormat::kBF16xBF16 ? std::max(flops_per_s, tiles.flops_per_s) : flops_per_s;
  }
};
MachineLimits measure_limits(ThreadPool& pool);

}  // namespace foe
