// Prints the peaks of this machine, f32 multiply-adds and 8-bit dot products: on one thread, and on all threads this
// process may use.
#include "kernels/peak.h"

#include <cstdio>

int main() {
  for (const int threads : {1, foe::available_threads()}) {
    foe::ThreadPool pool(threads);
    std::printf("%d thread%s: %.1f GFLOP/s f32 FMA, %.1f Gop/s 8-bit dot products\n", threads, threads == 1 ? "" : "s",
                foe::measure_fma_peak(pool) * 1e-9, foe::measure_dot_peak(pool) * 1e-9);
  }
}
