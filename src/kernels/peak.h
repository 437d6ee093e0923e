// The machine's ceiling: what the widest f32 fused multiply-adds reach with every operand in a register. Measured in
// the same process as whatever is compared with it, since clocks and neighbours differ from run to run.
#pragma once

#include "base/thread_pool.h"

namespace foe {

// FLOP/s (an FMA counts 2 per lane) of all threads of the pool together, each by its own processor time, so that a
// moment on a shared core does not lower it: the best of `rounds`, of about 20 ms each.
double measure_fma_peak(ThreadPool& pool, int rounds = 5);

}  // namespace foe
