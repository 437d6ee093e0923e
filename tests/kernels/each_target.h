// Runs a test body with every instruction set that is compiled (kernels/targets.h) and that this machine has.
#pragma once

#include <cstdint>

#include <gtest/gtest.h>
#include <hwy/highway.h>
#include <hwy/targets.h>

#include "kernels/cpu.h"

namespace foe {

template <typename Body>
void for_each_target(Body&& body) {
#if defined(__x86_64__)
  constexpr std::int64_t kShipped = HWY_AVX2 | HWY_AVX3;
  hwy::SetSupportedTargetsForTest(0);
  for (std::int64_t left = hwy::SupportedTargets() & kShipped; left != 0; left &= left - 1) {
    const std::int64_t target = left & -left;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
#else
  body();  // there is only one
#endif
}

// The same for products with quantised weights: also with and without AVX-512's dot products and AMX's tile registers,
// if this machine has them.
template <typename Body>
void for_each_target_of_codes(Body&& body) {
  for_each_target([&] {
    body();
#if defined(__x86_64__)
    if (tiles() && (hwy::SupportedTargets() & HWY_AVX3) != 0) {
      const WithoutTiles without;
      SCOPED_TRACE("without tiles");
      body();
    }
    if (dot_products() && (hwy::SupportedTargets() & HWY_AVX3) != 0) {
      const WithoutDotProducts without;
      const WithoutTiles without_tiles;
      SCOPED_TRACE("without dot products");
      body();
    }
#endif
  });
}

}  // namespace foe
