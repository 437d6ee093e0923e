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

// e^x within 2 ulp for |x| <= 87; exactly 0 below -87 (so masked scores of -inf vanish) and +inf above 88; NaN stays
// NaN. x = n ln2 + r with |r| <= ln2/2, e^r by its Taylor polynomial of degree 7 (next term below 2^-27 relative),
// times 2^n.
HWY_INLINE VF exp_lanes(VF x) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const auto too_small = hn::Lt(x, hn::Set(d, -87.0f));
  const auto too_large = hn::Gt(x, hn::Set(d, 88.0f));
  const VF bounded = hn::Min(hn::Max(x, hn::Set(d, -87.0f)), hn::Set(d, 88.0f));
  const VF n = hn::Round(hn::Mul(bounded, hn::Set(d, 1.44269504088896341f)));
  // ln2 in two parts: the first has few bits, so n times it is exact.
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), bounded);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VF p = hn::Set(d, 1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    p = hn::MulAdd(p, r, hn::Set(d, c));
  const VF scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  VF y = hn::Mul(p, scale);
  y = hn::IfThenElse(too_small, hn::Zero(d), y);
  y = hn::IfThenElse(too_large, hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

HWY_INLINE V16 exp16(V16 x) {
  return make16([&](int i) { return exp_lanes(x.v[i]); });
}

// x / (1 + e^-x)
HWY_INLINE V16 silu16(V16 x) {
  return make16([&](int i) {
    const DF d;
    return hn::Div(x.v[i], hn::Add(hn::Set(d, 1.0f), exp_lanes(hn::Neg(x.v[i]))));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
