// V16: sixteen floats as one value on every instruction set (one AVX-512 register, two AVX2 registers or four NEON
// registers). Lane-wise operations on it give the same bits everywhere, and a sum over lanes is a fixed tree.

#if defined(FOE_KERNELS_VEC16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_VEC16_INL_H_
#undef FOE_KERNELS_VEC16_INL_H_
#else
#define FOE_KERNELS_VEC16_INL_H_
#endif

#include <cstdint>
#include <utility>

#include <hwy/highway.h>

#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kLanes16 = 16;
using DF = hn::CappedTag<float, kLanes16>;
using VF = hn::Vec<DF>;
constexpr int kVecLanes = static_cast<int>(hn::MaxLanes(DF()));
constexpr int kVecs = kLanes16 / kVecLanes;
// Whether there are 32 vector registers instead of 16, which decides how large a register tile may be.
constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON;

// For lambdas. Arrays become registers only if the code that indexes them is inlined before other optimisations.
#define FOE_INLINE __attribute__((always_inline))

// Calls body(0), body(1) ... with constants, so that arrays which they index become registers.
template <int kCount, typename Body>
HWY_INLINE void repeat(Body&& body) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) FOE_INLINE {
    (body(std::integral_constant<int, kIndex>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

struct V16 {
  VF v[kVecs];
};

template <typename F>
HWY_INLINE V16 make16(F&& f) {
  V16 r;
  repeat<kVecs>([&](auto i) FOE_INLINE { r.v[i] = f(i); });
  return r;
}

HWY_INLINE V16 zero16() {
  return make16([](int) { return hn::Zero(DF()); });
}
HWY_INLINE V16 set16(float x) {
  const VF v = hn::Set(DF(), x);
  return make16([&](int) { return v; });
}
HWY_INLINE V16 load16(const float* p) {
  return make16([&](int i) { return hn::LoadU(DF(), p + i * kVecLanes); });
}
// bf16 is widened to f32 by a shift, which is exact.
HWY_INLINE V16 load16(const BF16* p) {
  const hn::Rebind<std::uint16_t, DF> d16;
  const hn::RebindToUnsigned<DF> d32;
  return make16([&](int i) {
    const auto half = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p) + i * kVecLanes);
    return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(d32, half)));
  });
}
HWY_INLINE V16 load16(const std::int8_t* p) {
  const hn::Rebind<std::int8_t, DF> d8;
  const hn::RebindToSigned<DF> d32;
  return make16([&](int i) { return hn::ConvertTo(DF(), hn::PromoteTo(d32, hn::LoadU(d8, p + i * kVecLanes))); });
}
HWY_INLINE void store16(V16 a, float* p) {
  for (int i = 0; i < kVecs; ++i) hn::StoreU(a.v[i], DF(), p + i * kVecLanes);
}
HWY_INLINE V16 add(V16 a, V16 b) {
  return make16([&](int i) { return hn::Add(a.v[i], b.v[i]); });
}
HWY_INLINE V16 sub(V16 a, V16 b) {
  return make16([&](int i) { return hn::Sub(a.v[i], b.v[i]); });
}
HWY_INLINE V16 mul(V16 a, V16 b) {
  return make16([&](int i) { return hn::Mul(a.v[i], b.v[i]); });
}
HWY_INLINE V16 div(V16 a, V16 b) {
  return make16([&](int i) { return hn::Div(a.v[i], b.v[i]); });
}
HWY_INLINE V16 max(V16 a, V16 b) {
  return make16([&](int i) { return hn::Max(a.v[i], b.v[i]); });
}
// a * b + c, rounded once.
HWY_INLINE V16 fma(V16 a, V16 b, V16 c) {
  return make16([&](int i) { return hn::MulAdd(a.v[i], b.v[i], c.v[i]); });
}

// The sum of all lanes as a tree: lane i is added to the lane half the width further on, and so on.
template <typename D>
HWY_INLINE float sum_halves(D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> half;
    return sum_halves(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    v = hn::Add(v, hn::Shuffle1032(v));
    return hn::GetLane(hn::Add(v, hn::Shuffle2301(v)));
  }
}
// The sum of the sixteen lanes as a tree: lane i is added to lane i + 8, then i + 4, i + 2 and i + 1.
HWY_INLINE float sum_lanes(V16 a) {
  for (int half = kVecs / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = hn::Add(a.v[i], a.v[i + half]);
  return sum_halves(DF(), a.v[0]);
}
HWY_INLINE float max_lane(V16 a) {
  VF m = a.v[0];
  for (int i = 1; i < kVecs; ++i) m = hn::Max(m, a.v[i]);
  return hn::GetLane(hn::MaxOfLanes(DF(), m));
}

// The first n lanes of a, and `rest` in the others.
HWY_INLINE V16 first_lanes(V16 a, int n, float rest) {
  return make16([&](int i) {
    const VF lane = hn::Iota(DF(), static_cast<float>(i * kVecLanes));
    return hn::IfThenElse(hn::Lt(lane, hn::Set(DF(), static_cast<float>(n))), a.v[i], hn::Set(DF(), rest));
  });
}

// Returns the lanes of a from the n-th on, and `rest` in those before.
HWY_INLINE V16 lanes_from(V16 a, int n, float rest) {
  return make16([&](int i) {
    const VF lane = hn::Iota(DF(), static_cast<float>(i * kVecLanes));
    return hn::IfThenElse(hn::Lt(lane, hn::Set(DF(), static_cast<float>(n))), hn::Set(DF(), rest), a.v[i]);
  });
}

// Load the first n < 16 floats at p, with zeros in the other lanes, and store them. For the ends of rows.
HWY_INLINE V16 load_first(const float* p, int n) {
  HWY_ALIGN float x[kLanes16] = {};
  for (int i = 0; i < n; ++i) x[i] = p[i];
  return load16(x);
}
HWY_INLINE void store_first(V16 a, float* p, int n) {
  HWY_ALIGN float x[kLanes16];
  store16(a, x);
  for (int i = 0; i < n; ++i) p[i] = x[i];
}

// Calls body(offset, load, store) for each 16 of n floats. `load` and `store` handle a shorter end, whose missing lanes
// are loaded as zero.
template <typename Body>
HWY_INLINE void for_each16(int n, Body&& body) {
  int i = 0;
  for (; i + kLanes16 <= n; i += kLanes16)
    body(
        i, [](const float* p) { return load16(p); }, [](V16 v, float* p) { store16(v, p); });
  if (const int rest = n - i; rest > 0)
    body(
        i, [rest](const float* p) { return load_first(p, rest); },
        [rest](V16 v, float* p) { store_first(v, p, rest); });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
