#include "kernels/cpu.h"

#include "base/error.h"
#include "kernels/targets.h"
// Highway reads what targets.h defines.
#include <hwy/highway.h>

namespace foe {

void require_cpu() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    fail("this processor is not supported: expected AVX2 and FMA");
#endif
}

std::string instruction_set() {
#if defined(__x86_64__)
  const auto targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);  // lower bits are better sets
#else
  return hwy::TargetName(HWY_TARGETS);  // there is one
#endif
}

}  // namespace foe
