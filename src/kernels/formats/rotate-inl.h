// Rotates blocks of kCodeBlock floats before they are rounded to integers: the Walsh-Hadamard transform, whose matrix
// has entries of 1 and -1 alone. A block then has no outliers left, which would make the steps of all others coarse.
// The transform of both factors of a product multiplies it by kCodeBlock.

#if defined(FOE_KERNELS_ROTATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ROTATE_INL_H_
#undef FOE_KERNELS_ROTATE_INL_H_
#else
#define FOE_KERNELS_ROTATE_INL_H_
#endif

#include <cstdint>

#include "kernels/formats/weight_format.h"
#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Returns lane i ^ kDistance as lane i.
template <int kDistance>
HWY_INLINE VF partners(VF v) {
  if constexpr (kDistance == 1) return hn::Shuffle2301(v);
  if constexpr (kDistance == 2) return hn::Shuffle1032(v);
  if constexpr (kDistance == 4) return hn::SwapAdjacentBlocks(v);
  if constexpr (kDistance == 8) return hn::ConcatLowerUpper(DF(), v, v);
}

// Replaces a by a + b, and b by a - b.
HWY_INLINE void add_and_subtract(VF& a, VF& b) {
  const VF sum = hn::Add(a, b);
  b = hn::Sub(a, b);
  a = sum;
}

// Replaces lanes i and i + kDistance by their sum and difference, where the bit kDistance of i is not set.
template <int kDistance>
HWY_INLINE void mix_lanes(V16& x) {
  if constexpr (kDistance < kVecLanes) {
    const hn::RebindToSigned<DF> di;
    const auto bit = hn::And(hn::Iota(di, 0), hn::Set(di, kDistance));
    const VF sign =
        hn::IfThenElse(hn::RebindMask(DF(), hn::Eq(bit, hn::Zero(di))), hn::Set(DF(), 1.0f), hn::Set(DF(), -1.0f));
    repeat<kVecs>([&](auto i) FOE_INLINE { x.v[i] = hn::MulAdd(x.v[i], sign, partners<kDistance>(x.v[i])); });
  } else {
    constexpr int kStep = kDistance / kVecLanes;
    repeat<kVecs>([&](auto i) FOE_INLINE {
      if constexpr ((i & kStep) == 0) add_and_subtract(x.v[i], x.v[i + kStep]);
    });
  }
}

// out[i] = the sum over j of x[j] if i & j has an even number of bits, and of -x[j] otherwise, added in pairs of
// neighbours, then in pairs of these sums, and so on. `out` may be x.
HWY_INLINE void rotate(const float* x, float* out) {
  constexpr int kParts = kCodeBlock / kLanes16;
  V16 parts[kParts];
  repeat<kParts>([&](auto i) FOE_INLINE {
    parts[i] = load16(x + i * kLanes16);
    mix_lanes<1>(parts[i]);
    mix_lanes<2>(parts[i]);
    mix_lanes<4>(parts[i]);
    mix_lanes<8>(parts[i]);
  });
  const auto mix_parts = [&](auto distance) FOE_INLINE {
    repeat<kParts>([&](auto i) FOE_INLINE {
      if constexpr ((i & distance) == 0)
        repeat<kVecs>([&](auto j) FOE_INLINE { add_and_subtract(parts[i].v[j], parts[i + distance].v[j]); });
    });
  };
  mix_parts(std::integral_constant<int, 1>());
  mix_parts(std::integral_constant<int, 2>());
  mix_parts(std::integral_constant<int, 4>());
  static_assert(kParts == 8);
  repeat<kParts>([&](auto i) FOE_INLINE { store16(parts[i], out + i * kLanes16); });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
