// Floats as signed bytes with one scale: each the nearest multiple of the scale, ties to even, from -127 to 127. If one
// is not finite the scale is NaN, and so is all that is read.

#if defined(FOE_KERNELS_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_INT8_INL_H_
#undef FOE_KERNELS_INT8_INL_H_
#else
#define FOE_KERNELS_INT8_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// The scale of n floats: their largest magnitude times the inverse of the largest code, but at least the smallest
// normal float, whose inverse is finite. The inverse is to be a hair less, so that no code times the scale overflows.
HWY_INLINE float scale_of(const float* x, int n, float inverse_of_most) {
  // Magnitudes are ordered like their bits, and those that are not finite come last.
  using DI = hn::RebindToSigned<DF>;
  auto most = hn::Zero(DI());
  for_each16(n, [&](int i, auto load, auto) {
    const V16 v = load(x + i);
    for (const VF& part : v.v) most = hn::Max(most, hn::BitCast(DI(), hn::Abs(part)));
  });
  const float largest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(DI(), most)));
  if (!(largest <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  return std::max(largest * inverse_of_most, std::numeric_limits<float>::min());
}
HWY_INLINE float int8_scale(const float* x, int n) {
  return scale_of(x, n, 0x1.020406p-7f);  // 1 / 127
}

// Sixteen floats with their scale's inverse.
HWY_INLINE void store_int8(V16 x, V16 inverse, std::int8_t* out) {
  const hn::Rebind<std::int8_t, DF> d8;
  for (int i = 0; i < kVecs; ++i) {
    const VF multiple = hn::Mul(x.v[i], inverse.v[i]);
    // NaN is no integer: it is replaced before it is converted.
    const VF number = hn::IfThenElse(hn::IsNaN(multiple), hn::Zero(DF()), multiple);
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(number)), d8, out + i * kVecLanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
