// The register tiles of products with quantised weights: integer dot products over the k that share a scale, exact,
// which are then scaled and added to f32 accumulators, one after the other in ascending order. So an output is one
// chain of fused multiply-adds, whatever the batch.
//
//   int8   Codes of weights and activations, both up to 127, are widened to 16 bits and multiplied in pairs: on x86 as
//          many instructions as for products of bytes, whose signs have to be moved and whose pairs need a second
//          addition.
//   int4   Levels from 3 to 62 (kInt4Levels + 32), because x86 multiplies bytes only if one is unsigned, times 7-bit
//          codes of activations. The sixteen products of a lane, less 32 times its activations' codes, fit into 16
//          bits, so that all additions but one are of 16-bit numbers.
//
// AVX-512's dot products (VNNI) multiply bytes and add to 32 bits: weights of both formats are made unsigned for them,
// and sums begin with what that adds too much. Sums of integers are exact, so the bits stay the same.

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
// stack.
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

// Whether there may be instructions that add four products to a sum (AVX-512 VNNI); dot_products() says if there are.
// In asm, because Highway's targets do not have them.
constexpr bool kMayDot = HWY_TARGET == HWY_AVX3;
// Adds, to sum j, four products of unsigned w and signed x.
HWY_INLINE void dot_quads([[maybe_unused]] VU8 w, [[maybe_unused]] VI32 x, [[maybe_unused]] VI32& sum) {
#if HWY_TARGET == HWY_AVX3
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
#endif
}

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

// Block of a row.
template <WeightFormat kFormat>
HWY_INLINE const RowBlock<kFormat>& row_block(const std::byte* row, std::size_t block) {
  return *reinterpret_cast<const RowBlock<kFormat>*>(row + block * sizeof(RowBlock<kFormat>));
}

// The scales of a panel's block for its `part`-th k that share one.
HWY_INLINE V16 load_scales(const std::byte* block, int part) {
  return load16(reinterpret_cast<const BF16*>(block) + part * kPanel);
}

// acc += sum * scale of the weights * scale of the row
template <typename Sum>
HWY_INLINE V16 add_block(Sum&& sum, V16 scale, float row_scale, V16 acc) {
  return fma(make16([&](int i) { return hn::ConvertTo(DF(), sum(i)); }), mul(scale, set16(row_scale)), acc);
}

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int8(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt8;
  constexpr int kBlock = block_depth(kFormat), kPairBytes = 2 * kPanel, kLinePairs = kCacheLine / kPairBytes;
  const hn::Rebind<std::int8_t, DI16> d8;
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int k = 0, block = 0; k < depth; k += kBlock, ++block, w += block_bytes(kFormat)) {
    const auto row = [&](int m) FOE_INLINE -> const RowBlock<kFormat>& { return row_block<kFormat>(x[m], block); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - k), panel_stride);
    HWY_ALIGN std::int16_t wide[kRows][kBlock];
    Dot16 sum[kRows][kPanels];
    repeat<kRows>([&](auto m) FOE_INLINE {
      for (int i = 0; i < kBlock; i += kPairLanes)
        hn::Store(hn::PromoteTo(DI16(), hn::LoadU(d8, row(m).codes + i)), DI16(), wide[m] + i);
      repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p] = zero_dot16(); });
    });
    repeat<kBlock / 2>([&](auto pair) FOE_INLINE {
      const std::byte* codes = w + scale_bytes(kFormat) + pair * kPairBytes;
      if (pair % kLinePairs == 0)
        repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(codes + p * panel_stride + distance); });
      VI16 two[kPanels][kVecs];
      repeat<kPanels>([&](auto p) FOE_INLINE { load_pair(codes + p * panel_stride, two[p]); });
      repeat<kRows>([&](auto m) FOE_INLINE {
        const VI16 both = hn::BitCast(DI16(), set_four(wide[m] + 2 * pair));
        repeat<kPanels>([&](auto p) FOE_INLINE {
          repeat<kVecs>([&](auto i) FOE_INLINE { add_pairs(both, two[p][i], i, sum[m][p]); });
        });
      });
    });
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales(w + p * panel_stride, 0);
      repeat<kRows>([&](auto m) FOE_INLINE {
        acc[m][p] = add_block([&](int i) FOE_INLINE { return total(sum[m][p], i); }, scale, row(m).scale, acc[m][p]);
      });
    });
  }
  store_tile(acc, y, y_stride);
}

// Levels + kLevelOffset of the `quad`-th four k from `codes` on: [16 rows][4 k].
HWY_INLINE void load_levels(const std::byte* codes, int quad, VU8 (&w)[kVecs]) {
  const VU8 levels = hn::BitCast(DU8(), hn::Add(hn::LoadDup128(DI8(), kInt4Levels), hn::Set(DI8(), kLevelOffset)));
  const auto* line = reinterpret_cast<const std::uint8_t*>(codes + quad / 2 * kCacheLine);
  for (int i = 0; i < kVecs; ++i) {
    const VU8 both = hn::LoadU(DU8(), line + i * 4 * kVecLanes);
    w[i] = hn::TableLookupBytes(levels, quad % 2 == 1 ? hn::ShiftRight<4>(both) : hn::And(both, hn::Set(DU8(), 0xf)));
  }
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

// The same with levels. One loop over scales, also across blocks: of two loops, one in the other, g++ makes slower
// code.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int4(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt4;
  constexpr int kDepth = scale_depth(kFormat), kParts = scales_in_block(kFormat), kQuads = kDepth / 4;
  // Of the products less what the offset added; on the way, sums may wrap around.
  constexpr int kMostCode = most_code(kFormat);
  static_assert(2 * kQuads * kMostLevel * kMostCode <= 32767 && 2 * (kMostLevel + kLevelOffset) * kMostCode <= 32767);
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const VI16 ones = hn::Set(DI16(), 1);
  const int scales = padded_depth(kFormat, depth) / kDepth;
  for (int s = 0; s < scales; ++s) {
    const int part = s % kParts;
    const std::byte* codes = w + scale_bytes(kFormat) + part * code_bytes(kFormat);
    const auto row = [&](int m) FOE_INLINE -> const RowBlock<kFormat>& { return row_block<kFormat>(x[m], s); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - s * kDepth), panel_stride);
    const auto ahead = [&](const std::byte* at) FOE_INLINE {
      repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(at + p * panel_stride + distance); });
    };
    VI16 sum[kRows][kPanels][kVecs];
    repeat<kRows>([&](auto m) FOE_INLINE {
      const VI16 begin = hn::BitCast(DI16(), set_four(row(m).offsets));
      repeat<kPanels>([&](auto p) FOE_INLINE { repeat<kVecs>([&](auto i) FOE_INLINE { sum[m][p][i] = begin; }); });
    });
    if (part == 0) ahead(w);
#pragma GCC unroll 16
    for (int quad = 0; quad < kQuads; ++quad) {
      if (quad % 2 == 0) ahead(codes + quad / 2 * kCacheLine);
      VI8 four[kRows];
      repeat<kRows>([&](auto m) FOE_INLINE { four[m] = hn::BitCast(DI8(), set_four(row(m).codes + 4 * quad)); });
      repeat<kPanels>([&](auto p) FOE_INLINE {
        VU8 levels[kVecs];
        load_levels(codes + p * panel_stride, quad, levels);
        repeat<kVecs>([&](auto i) FOE_INLINE {
          repeat<kRows>([&](auto m) FOE_INLINE {
            sum[m][p][i] = hn::Add(sum[m][p][i], multiply_pairs(levels[i], four[m]));
            keep_in_place(sum[m][p][i]);
          });
        });
      });
    }
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales(w + p * panel_stride, part);
      repeat<kRows>([&](auto m) FOE_INLINE {
        Dot16 all = zero_dot16();
        repeat<kVecs>([&](auto i) FOE_INLINE { add_pairs(ones, sum[m][p][i], i, all); });
        acc[m][p] = add_block([&](int i) FOE_INLINE { return total(all, i); }, scale, row(m).scale, acc[m][p]);
      });
    });
    if (part == kParts - 1) w += block_bytes(kFormat);
  }
  store_tile(acc, y, y_stride);
}

// The `quad`-th four k from `codes` on: [16 rows][4 k], made unsigned.
template <WeightFormat kFormat>
HWY_INLINE VU8 load_quad(const std::byte* codes, int quad) {
  if constexpr (kFormat == WeightFormat::kInt4) {
    VU8 levels[kVecs];
    load_levels(codes, quad, levels);
    return levels[0];
  } else {
#if HWY_TARGET == HWY_AVX3
    // Two pairs of every row lie 32 bytes apart.
    alignas(64) static constexpr std::uint16_t kTogether[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                              21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                              11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const VU8 quads{
        _mm512_permutexvar_epi16(_mm512_load_si512(kTogether), _mm512_loadu_si512(codes + quad * kCacheLine))};
    return hn::Xor(quads, hn::Set(DU8(), kCodeOffset));
#endif
  }
}

// Weights to ask for meanwhile: so many cache lines for each scale along the depth.
struct Meanwhile {
  const std::byte* at = nullptr;
  int lines = 0;
};

// The same, for both formats, where four products are added to a sum in one instruction. Two panels are multiplied
// together with many rows, so that what was loaded of a row serves both; several such tiles share their weights, and
// only the first would wait for memory, so they ask for what comes next instead of reading ahead.
template <WeightFormat kFormat, int kRows, int kPanels>
HWY_NOINLINE void multiply_dots(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride, Meanwhile next) {
  constexpr bool kReadsAhead = kPanels != 2;
  constexpr int kDepth = scale_depth(kFormat), kParts = scales_in_block(kFormat), kQuads = kDepth / 4;
  constexpr int kLineQuads = kCacheLine * kQuads / code_bytes(kFormat);
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const int scales = padded_depth(kFormat, depth) / kDepth;
  for (int s = 0; s < scales; ++s) {
    const int part = s % kParts;
    const std::byte* codes = w + scale_bytes(kFormat) + part * code_bytes(kFormat);
    const auto row = [&](int m) FOE_INLINE -> const RowBlock<kFormat>& { return row_block<kFormat>(x[m], s); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - s * kDepth), panel_stride);
    const auto ahead = [&](const std::byte* at) FOE_INLINE {
      if constexpr (kReadsAhead)
        repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(at + p * panel_stride + distance); });
    };
    if constexpr (!kReadsAhead)
      for (int i = 0; i < next.lines; ++i, next.at += kCacheLine) read_ahead(next.at);
    VI32 sum[kRows][kPanels];
    repeat<kRows>([&](auto m) FOE_INLINE {
      const VI32 begin = set_four(&row(m).offset);
      repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p] = begin; });
    });
    if (part == 0) ahead(w);
#pragma GCC unroll 16
    for (int quad = 0; quad < kQuads; ++quad) {
      if (quad % kLineQuads == kLineQuads - 1) ahead(codes + quad / kLineQuads * kCacheLine);
      VU8 four_w[kPanels];
      repeat<kPanels>([&](auto p) FOE_INLINE { four_w[p] = load_quad<kFormat>(codes + p * panel_stride, quad); });
      repeat<kRows>([&](auto m) FOE_INLINE {
        const VI32 four_x = set_four(row(m).codes + 4 * quad);
        repeat<kPanels>([&](auto p) FOE_INLINE { dot_quads(four_w[p], four_x, sum[m][p]); });
      });
    }
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales(w + p * panel_stride, part);
      repeat<kRows>([&](auto m) FOE_INLINE {
        acc[m][p] = add_block([&](int) FOE_INLINE { return sum[m][p]; }, scale, row(m).scale, acc[m][p]);
      });
    });
    if (part == kParts - 1) w += block_bytes(kFormat);
  }
  store_tile(acc, y, y_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
