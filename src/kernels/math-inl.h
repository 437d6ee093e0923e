// Transcendental functions on V16. Lane-wise and branch-free, so the same input gives the same bits in any lane of any
// instruction set.

#if defined(FOE_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_MATH_INL_H_
#undef FOE_KERNELS_MATH_INL_H_
#else
#define FOE_KERNELS_MATH_INL_H_
#endif

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// x becomes e^x, within 2 ulp for |x| <= 87; exactly 0 below -87 (so masked scores of -inf vanish) and +inf above 88;
// NaN stays NaN. x = n ln2 + r with |r| <= ln2/2, e^r by its Taylor polynomial of degree 7 (next term below 2^-27
// relative), times 2^n. A step is taken for all vectors before the next: the chain of one is long.
template <int kCount>
HWY_INLINE void exp_lanes(VF (&x)[kCount]) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const VF least = hn::Set(d, -87.0f), most = hn::Set(d, 88.0f);
  VF r[kCount], power[kCount];
  for (int i = 0; i < kCount; ++i) r[i] = hn::Min(hn::Max(x[i], least), most);
  // Added to 1.5 * 2^23, a number is rounded to an integer, which stands in the last bits.
  const VF shift = hn::Set(d, 0x1.8p23f);
  for (int i = 0; i < kCount; ++i) power[i] = hn::Add(hn::Mul(r[i], hn::Set(d, 1.44269504088896341f)), shift);
  for (int i = 0; i < kCount; ++i) {
    // ln2 in two parts: the first has few bits, so n times it is exact.
    const VF n = hn::Sub(power[i], shift);
    r[i] = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), r[i]);
    r[i] = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r[i]);
    power[i] = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, power[i]), hn::Set(di, 127))));
  }
  // Pairs of terms, pairs of pairs, and both halves: three steps instead of seven.
  const auto line = [&](float a, float b, VF v) { return hn::MulAdd(hn::Set(d, a), v, hn::Set(d, b)); };
  VF r2[kCount], high[kCount], p[kCount];
  for (int i = 0; i < kCount; ++i) r2[i] = hn::Mul(r[i], r[i]);
  for (int i = 0; i < kCount; ++i)
    high[i] = hn::MulAdd(line(1.0f / 5040, 1.0f / 720, r[i]), r2[i], line(1.0f / 120, 1.0f / 24, r[i]));
  for (int i = 0; i < kCount; ++i) p[i] = hn::MulAdd(line(1.0f / 6, 0.5f, r[i]), r2[i], line(1.0f, 1.0f, r[i]));
  for (int i = 0; i < kCount; ++i) p[i] = hn::MulAdd(high[i], hn::Mul(r2[i], r2[i]), p[i]);
  for (int i = 0; i < kCount; ++i) {
    const VF y = hn::IfThenZeroElse(hn::Lt(x[i], least), hn::Mul(p[i], power[i]));
    x[i] = hn::IfThenElse(hn::Le(x[i], most), y, hn::Add(x[i], hn::Inf(d)));  // NaN is not less, and stays
  }
}

HWY_INLINE V16 exp16(V16 x) {
  exp_lanes(x.v);
  return x;
}

// x / (1 + e^-x)
HWY_INLINE V16 silu16(V16 x) {
  return div(x, add(set16(1.0f), exp16(make16([&](int i) { return hn::Neg(x.v[i]); }))));
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
