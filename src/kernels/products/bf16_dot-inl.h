// Products of bf16 in the order of tile registers (TDPBF16PS, kernels/products/amx.h), for every instruction set. Over
// each 32 k, a chain of fused multiply-adds over even k and one over odd k start from zero; their sum is then added to
// the running sum. If fewer k are left, zeros take their place, which can only make a zero positive. As subnormal
// numbers count as zeros in tile registers, callers must hold a FlushSubnormals (kernels/products/flush_subnormals.h).
//
// Two neighbouring k of 16 outputs make a line of 64 bytes: [16 outputs][2 k] of bf16.

#if defined(FOE_KERNELS_BF16_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_BF16_DOT_INL_H_
#undef FOE_KERNELS_BF16_DOT_INL_H_
#else
#define FOE_KERNELS_BF16_DOT_INL_H_
#endif

#include <cstdint>

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kDotDepth = 32;             // k of the two chains
constexpr int kPairLine = 2 * kLanes16;   // bf16 of a line
constexpr int kDotLines = kDotDepth / 2;  // lines of kDotDepth k

// Load the i-th vector of a line (of the kVecs that make a V16), and widen the first or the second of each pair to f32,
// which is exact.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<DF>> load_pairs(const BF16* line, int i) {
  return hn::LoadU(hn::RebindToUnsigned<DF>(), reinterpret_cast<const std::uint32_t*>(line) + i * kVecLanes);
}
HWY_INLINE VF load_even(const BF16* line, int i) {
  return hn::BitCast(DF(), hn::ShiftLeft<16>(load_pairs(line, i)));
}
HWY_INLINE VF load_odd(const BF16* line, int i) {
  return hn::BitCast(DF(), hn::And(load_pairs(line, i), hn::Set(hn::RebindToUnsigned<DF>(), 0xffff0000u)));
}
HWY_INLINE V16 load_even(const BF16* line) {
  return make16([&](int i) { return load_even(line, i); });
}
HWY_INLINE V16 load_odd(const BF16* line) {
  return make16([&](int i) { return load_odd(line, i); });
}

// Rounds like to_bf16(); the result is an f32.
HWY_INLINE V16 round_to_bf16(V16 x) {
  const hn::RebindToUnsigned<DF> d;
  return make16([&](int i) {
    const auto bits = hn::BitCast(d, x.v[i]);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
    const auto up = hn::Add(hn::Add(bits, hn::Set(d, 0x7fffu)), odd);
    const VF rounded = hn::BitCast(DF(), hn::And(up, hn::Set(d, 0xffff0000u)));
    return hn::IfThenElse(hn::IsNaN(x.v[i]),
                          hn::BitCast(DF(), hn::And(hn::Or(bits, hn::Set(d, 0x400000u)), hn::Set(d, 0xffff0000u))),
                          rounded);
  });
}

// The two chains of 16 outputs, or of one vector of them: if a V16 takes several registers, a kernel may run over the
// lines once for each, and hold more rows of activations at a time.
template <typename V>
struct Chains {
  V even, odd;
};

HWY_INLINE Chains<V16> begin_chains16() {
  return {zero16(), zero16()};
}
HWY_INLINE Chains<VF> begin_chains() {
  return {hn::Zero(DF()), hn::Zero(DF())};
}

// Extends the chains by two k. x_even and x_odd have the row's activations there in all lanes.
HWY_INLINE void extend(Chains<V16>& chains, V16 x_even, V16 x_odd, V16 w_even, V16 w_odd) {
  chains.even = fma(x_even, w_even, chains.even);
  chains.odd = fma(x_odd, w_odd, chains.odd);
}
HWY_INLINE void extend(Chains<VF>& chains, VF x_even, VF x_odd, VF w_even, VF w_odd) {
  chains.even = hn::MulAdd(x_even, w_even, chains.even);
  chains.odd = hn::MulAdd(x_odd, w_odd, chains.odd);
}

// Returns the running sum after kDotDepth k, or at the end of all k.
HWY_INLINE V16 take(V16 sum, const Chains<V16>& chains) {
  return add(sum, add(chains.even, chains.odd));
}
HWY_INLINE VF take(VF sum, const Chains<VF>& chains) {
  return hn::Add(sum, hn::Add(chains.even, chains.odd));
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
