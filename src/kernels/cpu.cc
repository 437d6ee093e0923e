#include "kernels/cpu.h"

#include <algorithm>
#include <iterator>

#if defined(__x86_64__)
#include <cpuid.h>
#include <unistd.h>

#include <sys/syscall.h>
#endif

#include "base/error.h"
#include "kernels/instruction_limit.h"
#include "kernels/targets.h"
// Included after targets.h, whose definitions Highway reads.
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
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
#else
  return false;
#endif
}

// Linux lets a process use tiles only after it has asked for the memory that they take in each thread's saved state.
bool find_tiles() {
#if defined(__x86_64__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBf16 | kTile | kInt8;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  if (!find_dot_products() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAll) != kAll) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool dot_products_are_used = find_dot_products();
bool tiles_are_used = find_tiles();

}  // namespace

bool dot_products() {
  return dot_products_are_used;
}

bool tiles() {
  return tiles_are_used;
}

WithoutDotProducts::WithoutDotProducts() {
  dot_products_are_used = false;
}

WithoutDotProducts::~WithoutDotProducts() {
  dot_products_are_used = find_dot_products();
}

WithoutTiles::WithoutTiles() {
  tiles_are_used = false;
}

WithoutTiles::~WithoutTiles() {
  tiles_are_used = find_tiles();
}

std::string instruction_set() {
#if defined(__x86_64__)
  const auto targets = hwy::SupportedTargets() & HWY_TARGETS,
             best = targets & -targets;  // lower bits are better instruction sets
  return std::string(hwy::TargetName(best)) + (best == HWY_AVX3 && tiles()          ? " with VNNI and AMX"
                                               : best == HWY_AVX3 && dot_products() ? " with VNNI"
                                                                                    : "");
#else
  return hwy::TargetName(HWY_TARGETS);  // there is only one
#endif
}

void limit_instruction_set(const std::string& name, const std::string& source) {
  static const std::string kSets[] = {"AVX2", "AVX3", "AVX3 with VNNI", "AVX3 with VNNI and AMX"};
  const std::string here = instruction_set();
  const auto found = std::ranges::find(kSets, name), best = std::ranges::find(kSets, here);
  if (name != here && (found == std::end(kSets) || best == std::end(kSets) || found > best))
    fail("{}: expected an instruction set that this processor has, at most {}, got '{}'", source, here, name);
#if defined(__x86_64__)
  if (name == kSets[0]) hwy::DisableTargets(HWY_AVX3);
  dot_products_are_used = dot_products_are_used && found - kSets >= 2;
  tiles_are_used = tiles_are_used && found - kSets >= 3;
#endif
}

}  // namespace foe
