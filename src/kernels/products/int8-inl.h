// Rounds floats to signed bytes with one scale: each becomes the nearest multiple of the scale, ties to even, from -127
// to 127. If one is not finite, the scale is NaN, and all are read as NaN.

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

using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Repartition<std::int16_t, DF>;
using DI8 = hn::Repartition<std::int8_t, DF>;
using DU8 = hn::Repartition<std::uint8_t, DF>;
using VI32 = hn::Vec<DI32>;
using VI16 = hn::Vec<DI16>;
using VI8 = hn::Vec<DI8>;
using VU8 = hn::Vec<DU8>;

// Returns w[2j] * x[2j] + w[2j + 1] * x[2j + 1], which must fit into 16 bits. w must be at most 127.
HWY_INLINE VI16 multiply_pairs(VU8 w, VI8 x) {
#if HWY_TARGET == HWY_AVX2
  return VI16{_mm256_maddubs_epi16(w.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX3
  return VI16{_mm512_maddubs_epi16(w.raw, x.raw)};
#else
  const hn::Half<DI8> half;
  const VI8 levels = hn::BitCast(DI8(), w);
  const VI16 low = hn::Mul(hn::PromoteTo(DI16(), hn::LowerHalf(levels)), hn::PromoteTo(DI16(), hn::LowerHalf(x)));
  const VI16 high =
      hn::Mul(hn::PromoteTo(DI16(), hn::UpperHalf(half, levels)), hn::PromoteTo(DI16(), hn::UpperHalf(half, x)));
  return hn::Add(hn::ConcatEven(DI16(), high, low), hn::ConcatOdd(DI16(), high, low));
#endif
}

// Returns the scale of n floats: their largest magnitude / 127, but at least the smallest normal float, whose inverse
// is finite. The factor is slightly less than 1 / 127, so that no code times the scale overflows.
HWY_INLINE float int8_scale(const float* x, int n) {
  constexpr float kInverse = 0x1.020406p-7f;
  // Magnitudes have the order of their bits, in which those that are not finite come last.
  auto most = hn::Zero(DI32());
  for_each16(n, [&](int i, auto load, auto) {
    const V16 v = load(x + i);
    for (const VF& part : v.v) most = hn::Max(most, hn::BitCast(DI32(), hn::Abs(part)));
  });
  const float largest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(DI32(), most)));
  if (!(largest <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  return std::max(largest * kInverse, std::numeric_limits<float>::min());
}

// Rounds and stores sixteen floats, given the inverse of their scale.
HWY_INLINE void store_int8(V16 x, V16 inverse, std::int8_t* out) {
  const hn::Rebind<std::int8_t, DF> d8;
  for (int i = 0; i < kVecs; ++i) {
    const VF multiple = hn::Mul(x.v[i], inverse.v[i]);
    // NaN cannot be converted to an integer, so it is replaced first.
    const VF number = hn::IfThenElse(hn::IsNaN(multiple), hn::Zero(DF()), multiple);
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(number)), d8, out + i * kVecLanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
