// The register tiles of products with quantised weights: integer dot products over a block of the depth, exact, which
// are then scaled and added to f32 accumulators, block by block in ascending order. So an output is one chain of fused
// multiply-adds over ascending blocks, whatever the batch.
//
//   int8   Codes up to 127 are widened to 16 bits and multiplied in pairs with 16-bit codes of activations; a block's
//          sum, at most 64 * 127 * 32767, fits into 32 bits. On x86 that takes as many instructions as 8-bit products,
//          whose signs have to be moved and whose pairs need a second addition.
//   int4   Levels from 3 to 62 (kInt4Levels + 32), because x86 multiplies bytes only if one is unsigned, times 7-bit
//          codes of activations. The sixteen products of a lane, less 32 times its activations' codes, fit into 16
//          bits, so that all additions but one are of 16-bit numbers.
//
// With AVX-512's dot products (VNNI) sums of both are of 32 bits. Sums of integers are exact, so the bits stay the
// same.

#if defined(FOE_KERNELS_QUANTISED_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_QUANTISED_TILE_INL_H_
#undef FOE_KERNELS_QUANTISED_TILE_INL_H_
#else
#define FOE_KERNELS_QUANTISED_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/gemm_tile-inl.h"
#include "kernels/quantise.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Repartition<std::int16_t, DF>;
using VI32 = hn::Vec<DI32>;
using VI16 = hn::Vec<DI16>;
constexpr int kPairLanes = 2 * kVecLanes;

using DU8 = hn::Repartition<std::uint8_t, DF>;
using DI8 = hn::Repartition<std::int8_t, DF>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;

// Keeps an addition where it is written: g++ otherwise moves those of integers together, and what they add waits on the
// stack. (The loops below say that they are to be unrolled, because g++'s own limit leaves their sums there, too.)
template <typename V>
HWY_INLINE void keep_in_place(V& sum) {
#if HWY_ARCH_X86
  asm("" : "+v"(sum.raw));
#else
  asm("" : "+w"(sum.raw));
#endif
}

// Sums of 16 rows. Some instruction sets keep them in two halves (hn::ReorderWidenMulAccumulate).
struct Dot16 {
  VI32 a[kVecs], b[kVecs];
};

HWY_INLINE Dot16 zero_dot16() {
  Dot16 r;
  for (int i = 0; i < kVecs; ++i) r.a[i] = r.b[i] = hn::Zero(DI32());
  return r;
}
// Adds x[2j] * w[2j] + x[2j + 1] * w[2j + 1] to sum j of vector i.
HWY_INLINE void add_pairs(VI16 x, VI16 w, int i, Dot16& sum) {
  sum.a[i] = hn::ReorderWidenMulAccumulate(DI32(), w, x, sum.a[i], sum.b[i]);
  keep_in_place(sum.a[i]);
}
HWY_INLINE VI32 total(const Dot16& sum, int i) {
  return hn::RearrangeToOddPlusEven(sum.a[i], sum.b[i]);
}

// Whether there may be instructions that add several products to a sum (AVX-512 VNNI); dot_products() says if there
// are. In asm, because Highway's targets do not have them.
constexpr bool kMayDot = HWY_TARGET == HWY_AVX3;
#if HWY_TARGET == HWY_AVX3
#define FOE_ADD_DOTS(instruction, sum, w, x) \
  asm(instruction " %2, %1, %0" : "+v"((sum).raw) : "v"((w).raw), "v"((x).raw))
#else
#define FOE_ADD_DOTS(instruction, sum, w, x) (static_cast<void>(sum), static_cast<void>(w), static_cast<void>(x))
#endif
// Adds, to sum j, two products of 16 bits or four of unsigned w and signed x.
HWY_INLINE void dot_pairs(VI16 w, VI32 x, VI32& sum) {
  FOE_ADD_DOTS("vpdpwssd", sum, w, x);
}
HWY_INLINE void dot_quads(VU8 w, VI32 x, VI32& sum) {
  FOE_ADD_DOTS("vpdpbusd", sum, w, x);
}
#undef FOE_ADD_DOTS

// Four bytes of activations in every lane.
HWY_INLINE VI32 set_four(const void* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return hn::Set(DI32(), four);
}

// Of a panel's block in int8, two k: [16 rows][2 k] in 16 bits.
HWY_INLINE void load_pair(const std::byte* codes, VI16 (&w)[kVecs]) {
  const hn::Rebind<std::int8_t, DI16> d8;
  for (int i = 0; i < kVecs; ++i)
    w[i] = hn::PromoteTo(DI16(), hn::LoadU(d8, reinterpret_cast<const std::int8_t*>(codes) + i * kPairLanes));
}

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on. Rows are 16-bit codes with their scale at
// the end.
template <int kRows, int kPanels, bool kDots>
HWY_NOINLINE void multiply_int8(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt8;
  constexpr int kBlock = block_depth(kFormat), kPairBytes = 2 * kPanel, kLinePairs = kCacheLine / kPairBytes;
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int k = 0; k < depth; k += kBlock, w += block_bytes(kFormat)) {
    Dot16 sum[kRows][kPanels];
#pragma GCC unroll 8
    for (auto& row : sum)
      for (Dot16& s : row) s = zero_dot16();
    const std::byte* codes = w + scale_bytes(kFormat);
#pragma GCC unroll 16
    for (int pair = 0; pair < kBlock / 2; pair += kLinePairs, codes += kCacheLine) {
      for (int p = 0; p < kPanels; ++p) read_ahead<kPanels>(codes + p * panel_stride);
      for (int j = 0; j < kLinePairs; ++j) {
        VI16 two[kPanels][kVecs];
        for (int p = 0; p < kPanels; ++p) load_pair(codes + p * panel_stride + j * kPairBytes, two[p]);
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) {
          const VI32 both = set_four(x[m] + (k / 2 + pair + j) * 2 * sizeof(std::int16_t));
          for (int p = 0; p < kPanels; ++p)
            for (int i = 0; i < kVecs; ++i)
              if constexpr (kDots)
                dot_pairs(two[p][i], both, sum[m][p].a[i]);
              else
                add_pairs(hn::BitCast(DI16(), both), two[p][i], i, sum[m][p]);
        }
      }
    }
    for (int p = 0; p < kPanels; ++p) {
      const V16 scale = load16(reinterpret_cast<const BF16*>(w + p * panel_stride));
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m)
        acc[m][p] = fma(make16([&](int i) { return hn::ConvertTo(DF(), total(sum[m][p], i)); }), scale, acc[m][p]);
    }
  }
  for (int m = 0; m < kRows; ++m) {
    float scale;
    std::memcpy(&scale, x[m] + quantised_row_bytes(kFormat, depth) - sizeof scale, sizeof scale);
    for (V16& a : acc[m]) a = mul(a, set16(scale));
  }
  store_tile(acc, y, y_stride);
}

// Of a panel's block in int4, four k: [16 rows][4 k], levels + kLevelOffset.
HWY_INLINE void load_quad(const std::byte* codes, VU8 (&w)[kVecs]) {
#if HWY_TARGET == HWY_AVX3
  const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const VU8 both{_mm512_mask_srli_epi16(twice, 0xffff0000, twice, 4)};  // the upper half has the rows 8 to 15
  const VU8 levels = hn::BitCast(
      DU8(), hn::Add(hn::LoadDup128(DI8(), kInt4Levels), hn::Set(DI8(), static_cast<std::int8_t>(kLevelOffset))));
  w[0] = hn::TableLookupBytes(levels, hn::And(both, hn::Set(DU8(), 0xf)));
#else
  using DHalf = hn::CappedTag<std::uint8_t, 2 * kPanel>;  // of the bytes in which 8 rows share with 8
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(DHalf()));
  const auto levels = hn::BitCast(DHalf(), hn::Add(hn::LoadDup128(hn::RebindToSigned<DHalf>(), kInt4Levels),
                                                   hn::Set(hn::RebindToSigned<DHalf>(), kLevelOffset)));
  for (int i = 0; i < 2 * kPanel / kLanes; ++i) {
    const auto both = hn::LoadU(DHalf(), reinterpret_cast<const std::uint8_t*>(codes) + i * kLanes);
    w[i] = hn::TableLookupBytes(levels, hn::And(both, hn::Set(DHalf(), 0xf)));
    w[kVecs / 2 + i] = hn::TableLookupBytes(levels, hn::ShiftRight<4>(both));
  }
#endif
}

// w[2j] * x[2j] + w[2j + 1] * x[2j + 1], which must fit into 16 bits.
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

// The same with rows of 7-bit codes, whose blocks have scales of their own.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int4(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt4;
  constexpr int kBlock = block_depth(kFormat), kQuads = kBlock / 4, kQuadBytes = 2 * kPanel;
  // Of the products less what the offset added; on the way, sums may wrap around.
  static_assert(2 * kQuads * kMostLevel * kMost7Bits <= 32767 && 2 * (kMostLevel + kLevelOffset) * kMost7Bits <= 32767);
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const VI16 ones = hn::Set(DI16(), 1);
  for (int k = 0, block = 0; k < depth; k += kBlock, ++block, w += block_bytes(kFormat)) {
    const RowBlock* row[kRows];
    VI16 sum[kRows][kPanels][kVecs];
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      row[m] = reinterpret_cast<const RowBlock*>(x[m]) + block;
      for (auto& panel : sum[m])
        for (VI16& s : panel) s = hn::BitCast(DI16(), set_four(row[m]->offsets));
    }
    for (int p = 0; p < kPanels; ++p) read_ahead<kPanels>(w + p * panel_stride);
    const std::byte* codes = w + scale_bytes(kFormat);
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad, codes += kQuadBytes) {
      if (quad % 2 == 1)
        for (int p = 0; p < kPanels; ++p) read_ahead<kPanels>(codes + p * panel_stride);
      VI8 four[kRows];
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) four[m] = hn::BitCast(DI8(), set_four(row[m]->codes + 4 * quad));
      for (int p = 0; p < kPanels; ++p) {
        VU8 levels[kVecs];
        load_quad(codes + p * panel_stride, levels);
        for (int i = 0; i < kVecs; ++i)
#pragma GCC unroll 8
          for (int m = 0; m < kRows; ++m) {
            sum[m][p][i] = hn::Add(sum[m][p][i], multiply_pairs(levels[i], four[m]));
            keep_in_place(sum[m][p][i]);
          }
      }
    }
    for (int p = 0; p < kPanels; ++p) {
      const V16 scale = load16(reinterpret_cast<const BF16*>(w + p * panel_stride));
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        Dot16 all = zero_dot16();
        for (int i = 0; i < kVecs; ++i) add_pairs(ones, sum[m][p][i], i, all);
        const V16 x16 = make16([&](int i) { return hn::ConvertTo(DF(), total(all, i)); });
        acc[m][p] = fma(x16, mul(scale, set16(row[m]->scale)), acc[m][p]);
      }
    }
  }
  store_tile(acc, y, y_stride);
}

// The same where four products are added to a sum in one instruction, whose sums are of 32 bits. Panels are multiplied
// together, so that what was loaded of a row serves all of them. Not one function with the other: however the two sums
// were told apart there, g++ spilt those of 16 bits.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int4_dots(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                     int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt4;
  constexpr int kBlock = block_depth(kFormat), kQuads = kBlock / 4, kQuadBytes = 2 * kPanel;
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const VI16 ones = hn::Set(DI16(), 1);
  for (int k = 0, block = 0; k < depth; k += kBlock, ++block, w += block_bytes(kFormat)) {
    const RowBlock* row[kRows];
    VI32 sum[kRows][kPanels];
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      row[m] = reinterpret_cast<const RowBlock*>(x[m]) + block;
      for (VI32& s : sum[m]) {
        s = hn::Zero(DI32());
        dot_pairs(ones, set_four(row[m]->offsets), s);
      }
    }
    for (int p = 0; p < kPanels; ++p) read_ahead<kPanels>(w + p * panel_stride);
    const std::byte* codes = w + scale_bytes(kFormat);
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad, codes += kQuadBytes) {
      if (quad % 2 == 1)
        for (int p = 0; p < kPanels; ++p) read_ahead<kPanels>(codes + p * panel_stride);
      VU8 levels[kPanels][kVecs];
      for (int p = 0; p < kPanels; ++p) load_quad(codes + p * panel_stride, levels[p]);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const VI32 four = set_four(row[m]->codes + 4 * quad);
        for (int p = 0; p < kPanels; ++p) dot_quads(levels[p][0], four, sum[m][p]);
      }
    }
    for (int p = 0; p < kPanels; ++p) {
      const V16 scale = load16(reinterpret_cast<const BF16*>(w + p * panel_stride));
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const V16 x16 = make16([&](int) { return hn::ConvertTo(DF(), sum[m][p]); });
        acc[m][p] = fma(x16, mul(scale, set16(row[m]->scale)), acc[m][p]);
      }
    }
  }
  store_tile(acc, y, y_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
