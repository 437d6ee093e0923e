// The weights of attention in bf16, before they are rounded. They are powers of 2 instead of e.

#if defined(FOE_KERNELS_BF16_WEIGHT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_BF16_WEIGHT_INL_H_
#undef FOE_KERNELS_BF16_WEIGHT_INL_H_
#else
#define FOE_KERNELS_BF16_WEIGHT_INL_H_
#endif

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Returns 2^y for y = dot * scale - largest: at most 1, except for rounding, and 0 below 2^-126. The relative error is
// at most 2^-18, which is enough because weights are rounded to bf16. With y = n + r, n = floor(y) and 0 <= r < 1, it
// is 2^n times the polynomial of degree 4 with the least error from 2^r.
HWY_INLINE V16 weight16(V16 dot, V16 scale, V16 minus_largest) {
  const V16 y = fma(dot, scale, minus_largest);
#if HWY_TARGET == HWY_AVX3
  const V16 r{{VF{_mm512_reduce_ps(y.v[0].raw, _MM_FROUND_TO_NEG_INF)}}};
#else
  // NaN is not less, and stays NaN. For -0.5 < y < 0, the bits that r loses round it down.
  const VF least = hn::Set(DF(), -127.0f);
  const V16 bounded = make16([&](int i) { return hn::IfThenElse(hn::Lt(y.v[i], least), least, y.v[i]); });
  const V16 n = make16([&](int i) { return hn::Floor(bounded.v[i]); });
  const V16 nearest = sub(bounded, n), again = add(nearest, n);
  const V16 r = make16([&](int i) {
    const hn::RebindToSigned<DF> di;
    const auto one_less = hn::BitCast(di, hn::VecFromMask(DF(), hn::Gt(again.v[i], bounded.v[i])));
    return hn::BitCast(DF(), hn::Add(hn::BitCast(di, nearest.v[i]), one_less));
  });
#endif
  V16 p = fma(set16(0.0135341678f), r, set16(0.0520114601f));
  for (const float next : {0.241442755f, 0.693003833f, 1.00000262f}) p = fma(p, r, set16(next));
#if HWY_TARGET == HWY_AVX3
  return V16{{VF{_mm512_scalef_ps(p.v[0].raw, y.v[0].raw)}}};
#else
  // Adding 1.5 * 2^23 puts an integer into the last bits, here as an exponent: n + 1, so that the result is a normal
  // number for every n.
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const V16 shifted = add(n, set16(0x1.8p23f + 128));
  return make16([&](int i) {
    const VF twice = hn::Mul(p.v[i], hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted.v[i]))));
    return hn::Mul(twice, hn::Set(d, 0.5f));
  });
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
