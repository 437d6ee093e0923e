// Prints the limits of this machine with which measurements are compared: f32 multiply-adds, 8-bit dot products, and
// reading from memory, on one thread and on all threads that this process may use.
#include <cstdio>

#include "kernels/peak.h"

int main() {
  for (const int threads : {1, foe::available_threads()}) {
    foe::ThreadPool pool(threads);
    const foe::MachineLimits limits = foe::measure_limits(pool);
    std::printf("%d thread%s: %.1f GFLOP/s in f32, %.1f Gop/s of 8-bit dot products, %.1f GB/s read\n", threads,
                threads == 1 ? "" : "s", limits.flops_per_s / 1e9, limits.dots_per_s / 1e9,
                limits.read_bytes_per_s / 1e9);
    if (limits.tiles.dots_per_s > 0)
      std::printf("  tiles: %.1f GFLOP/s in bf16, %.1f Gop/s of 8-bit integers\n", limits.tiles.flops_per_s / 1e9,
                  limits.tiles.dots_per_s / 1e9);
  }
}
