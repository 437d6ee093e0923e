// Functions on V16. They are lane-wise and have no branches that depend on values, so the same input gives the same
// bits in any lane of any instruction set.

#if defined(FOE_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_MATH_INL_H_
#undef FOE_KERNELS_MATH_INL_H_
#else
#define FOE_KERNELS_MATH_INL_H_
#endif

#include "core/activation.h"
#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Returns e^x, within 2 ulp for |x| <= 87; exactly 0 below -87 (so masked scores of -inf vanish) and +inf above 88; NaN
// stays NaN. With x = n ln2 + r and |r| <= ln2/2, it is the Taylor polynomial of e^r of degree 7 (the next term is
// below 2^-27, relative) times 2^n.
HWY_INLINE V16 exp16(V16 x) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const VF least = hn::Set(d, -87.0f), most = hn::Set(d, 88.0f);
  const V16 bounded = make16([&](int i) { return hn::Min(hn::Max(x.v[i], least), most); });
  // Adding 1.5 * 2^23 rounds a number to an integer, which is then in the last bits of the sum.
  const V16 shift = set16(0x1.8p23f), shifted = add(mul(bounded, set16(1.44269504088896341f)), shift);
  const V16 n = sub(shifted, shift);
  // ln2 is split into two parts, of which the first has few bits, so that n times it is exact.
  const V16 r = fma(n, set16(2.12194440e-4f), fma(n, set16(-0.693359375f), bounded)), r2 = mul(r, r);
  // The polynomial is evaluated as pairs of terms, pairs of pairs, and both halves: three dependent steps instead of
  // seven.
  const auto line = [&](float a, float b) { return fma(set16(a), r, set16(b)); };
  const V16 high = fma(line(1.0f / 5040, 1.0f / 720), r2, line(1.0f / 120, 1.0f / 24));
  const V16 low = fma(line(1.0f / 6, 0.5f), r2, line(1.0f, 1.0f));
  const V16 p = fma(high, mul(r2, r2), low);
  return make16([&](int i) {
    const VF power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, shifted.v[i]), hn::Set(di, 127))));
    const VF y = hn::IfThenZeroElse(hn::Lt(x.v[i], least), hn::Mul(p.v[i], power));
    return hn::IfThenElse(hn::Le(x.v[i], most), y,
                          hn::Add(x.v[i], hn::Inf(d)));  // NaN is not less or equal, and stays NaN
  });
}

// The hyperbolic tangent within 4 ulp; NaN stays NaN. Below 0.55, where 1 - 2 / (e^2x + 1) loses digits, x + x^3 times
// the polynomial of degree 4 in x^2 that errs least from it (2^-29 relative).
HWY_INLINE V16 tanh16(V16 x) {
  const DF d;
  const V16 size = make16([&](int i) { return hn::Abs(x.v[i]); });
  const V16 far = sub(set16(1.0f), div(set16(2.0f), add(exp16(add(size, size)), set16(1.0f))));
  const V16 x2 = mul(x, x);
  V16 p = fma(set16(-0.00627423951f), x2, set16(0.021071679f));
  for (const float next : {-0.0538523099f, 0.133325861f, -0.333333176f}) p = fma(p, x2, set16(next));
  const V16 near = fma(mul(x, x2), p, x);
  return make16([&](int i) {
    return hn::CopySign(hn::IfThenElse(hn::Lt(size.v[i], hn::Set(d, 0.55f)), near.v[i], far.v[i]), x.v[i]);
  });
}

// x / (1 + e^(-alpha x))
HWY_INLINE V16 silu16(V16 x, float alpha = 1) {
  return div(x, add(set16(1.0f), exp16(mul(set16(-alpha), x))));
}

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
HWY_INLINE V16 gelu_tanh16(V16 x) {
  const V16 cube = mul(x, mul(x, x)), half = mul(x, set16(0.5f));
  const V16 inner = mul(set16(0.797884560802865f), fma(set16(0.044715f), cube, x));
  return fma(half, tanh16(inner), half);
}

// max(0, x)^2; NaN stays NaN.
HWY_INLINE V16 relu2_16(V16 x) {
  return make16([&](int i) { return hn::IfThenZeroElse(hn::Lt(x.v[i], hn::Zero(DF())), hn::Mul(x.v[i], x.v[i])); });
}

HWY_INLINE V16 activate16(Activation activation, V16 x, float alpha = 1) {
  switch (activation) {
    case Activation::kSilu:
      return silu16(x, alpha);
    case Activation::kGeluTanh:
      return gelu_tanh16(x);
    case Activation::kRelu2:
      return relu2_16(x);
  }
  return x;
}

// min(x, most) and max(x, least); NaN stays NaN.
HWY_INLINE V16 at_most16(V16 x, float most) {
  const VF limit = hn::Set(DF(), most);
  return make16([&](int i) { return hn::IfThenElse(hn::Gt(x.v[i], limit), limit, x.v[i]); });
}
HWY_INLINE V16 at_least16(V16 x, float least) {
  const VF limit = hn::Set(DF(), least);
  return make16([&](int i) { return hn::IfThenElse(hn::Lt(x.v[i], limit), limit, x.v[i]); });
}

// act(gate) * up, with what `shape` says besides.
HWY_INLINE V16 gate16(Activation activation, const GateShape& shape, V16 gate, V16 up) {
  if (shape.limit > 0) {
    const auto limit = static_cast<float>(shape.limit);
    gate = at_most16(gate, limit);
    up = at_least16(at_most16(up, limit), -limit);
  }
  if (shape.up_offset != 0) up = add(up, set16(static_cast<float>(shape.up_offset)));
  return mul(activate16(activation, gate, static_cast<float>(shape.alpha)), up);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
