// Prints the f32 FMA peak of this machine: on one thread, and on all threads this process may use.
#include "kernels/peak.h"

#include <cstdio>

int main() {
  for (const int threads : {1, foe::available_threads()}) {
    foe::ThreadPool pool(threads);
    std::printf("%d thread%s: %.1f GFLOP/s f32 FMA\n", threads, threads == 1 ? "" : "s",
                foe::measure_fma_peak(pool) * 1e-9);
  }
}
