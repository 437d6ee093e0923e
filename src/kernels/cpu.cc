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

namespace {

bool find_dot_products() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool dot_products_are_used = find_dot_products();

}  // namespace

bool dot_products() {
  return dot_products_are_used;
}

WithoutDotProducts::WithoutDotProducts() {
  dot_products_are_used = false;
}

WithoutDotProducts::~WithoutDotProducts() {
  dot_products_are_used = find_dot_products();
}

std::string instruction_set() {
#if defined(__x86_64__)
  const auto targets = hwy::SupportedTargets() & HWY_TARGETS, best = targets & -targets;  // lower bits are better sets
  return std::string(hwy::TargetName(best)) + (best == HWY_AVX3 && dot_products() ? " with VNNI" : "");
#else
  return hwy::TargetName(HWY_TARGETS);  // there is one
#endif
}

}  // namespace foe
