// The register tiles of products with quantised weights: integer dot products over a block of the depth, exact, which
// are then scaled and added to f32 accumulators, block by block in ascending order. So an output is one chain of fused
// multiply-adds over ascending blocks, whatever the batch.
//
//   int8   Codes up to 127 are widened to 16 bits and multiplied in pairs with 16-bit codes of activations; a block's
//   sum,
//          at most 64 * 127 * 32767, fits into 32 bits. On x86 that takes as many instructions as 8-bit products, whose
//          signs have to be moved and whose pairs need a second addition.
//   int4   Levels from 0 to 63 (kInt4Levels + 32) times 7-bit codes of activations: eight products, at most 8 * 63 *
//   63,
//          fit into 16 bits, so that most additions are of 16-bit numbers. 32 times the sum of the activations' codes
//          is taken off at the end.

#if defined(FOE_KERNELS_QUANTISED_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_QUANTISED_TILE_INL_H_
#undef FOE_KERNELS_QUANTISED_TILE_INL_H_
#else
#define FOE_KERNELS_QUANTISED_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/quantise.h"
#include "kernels/vec16-inl.h"

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
}
HWY_INLINE VI32 total(const Dot16& sum, int i) {
  return hn::RearrangeToOddPlusEven(sum.a[i], sum.b[i]);
}
// Four bytes of activations in every lane.
HWY_INLINE VI32 set_four(const void* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return hn::Set(DI32(), four);
}

// Where the codes of a panel's block are read from, two k at a time: [16 rows][2 k] in 16 bits.
struct Int8Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt8;
  using Wide = std::int16_t;
  const std::byte* block;  // with its scales

  HWY_INLINE VI16 load(int pair, int i) const {
    const hn::Rebind<std::int8_t, DI16> d8;
    const auto* codes = reinterpret_cast<const std::int8_t*>(block + scale_bytes(kFormat)) + pair * 2 * kPanel;
    return hn::PromoteTo(DI16(), hn::LoadU(d8, codes + i * kPairLanes));
  }
  HWY_INLINE void widen(Wide* to) const {
    for (int pair = 0; pair < block_depth(kFormat) / 2; ++pair)
      for (int i = 0; i < kVecs; ++i) hn::Store(load(pair, i), DI16(), to + pair * 2 * kPanel + i * kPairLanes);
  }
};

struct WideInt8Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt8;
  const std::byte* block;
  const std::int16_t* codes;

  HWY_INLINE VI16 load(int pair, int i) const { return hn::Load(DI16(), codes + pair * 2 * kPanel + i * kPairLanes); }
};

// acc[m][p] += scale of the block * sum over its k of x[m][k] * code[p][k]. x: kRows rows of 16-bit codes.
template <int kRows, int kPanels, typename Codes>
requires(Codes::kFormat == WeightFormat::kInt8) HWY_INLINE
    void add_block(const std::byte* const* x, int block, const Codes (&w)[kPanels], float (*acc)[kPanels][kPanel]) {
  constexpr int kBlock = block_depth(WeightFormat::kInt8);
  const std::byte* row[kRows];
  for (int m = 0; m < kRows; ++m) row[m] = x[m] + block * kBlock * sizeof(std::int16_t);
  Dot16 sum[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) sum[m][p] = zero_dot16();
  for (int pair = 0; pair < kBlock / 2; ++pair) {
    VI16 codes[kPanels][kVecs];
    for (int p = 0; p < kPanels; ++p)
      for (int i = 0; i < kVecs; ++i) codes[p][i] = w[p].load(pair, i);
    for (int m = 0; m < kRows; ++m) {
      const VI16 both = hn::BitCast(DI16(), set_four(row[m] + pair * 4));
      for (int p = 0; p < kPanels; ++p)
        for (int i = 0; i < kVecs; ++i) add_pairs(both, codes[p][i], i, sum[m][p]);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const V16 scale = load16(reinterpret_cast<const BF16*>(w[p].block));
    for (int m = 0; m < kRows; ++m) {
      const V16 x16 = make16([&](int i) { return hn::ConvertTo(DF(), total(sum[m][p], i)); });
      store16(fma(x16, scale, load16(acc[m][p])), acc[m][p]);
    }
  }
}

// Four k at a time: [16 rows][4 k], levels + kLevelOffset.
constexpr int kLevelOffset = 32;

struct Int4Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt4;
  using Wide = std::uint8_t;
  const std::byte* block;

  HWY_INLINE void load(int quad, VU8 (&w)[kVecs]) const {
    using DHalf = hn::CappedTag<std::uint8_t, 2 * kPanel>;  // of the bytes in which 8 rows share with 8
    constexpr int kLanes = static_cast<int>(hn::MaxLanes(DHalf()));
    const auto levels = hn::BitCast(DHalf(), hn::Add(hn::LoadDup128(hn::RebindToSigned<DHalf>(), kInt4Levels),
                                                     hn::Set(hn::RebindToSigned<DHalf>(), kLevelOffset)));
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block + scale_bytes(kFormat)) + quad * 2 * kPanel;
    for (int i = 0; i < 2 * kPanel / kLanes; ++i) {
      const auto both = hn::LoadU(DHalf(), bytes + i * kLanes);
      const auto low = hn::TableLookupBytes(levels, hn::And(both, hn::Set(DHalf(), 0xf)));
      const auto high = hn::TableLookupBytes(levels, hn::ShiftRight<4>(both));
      place(low, high, i, w);
    }
  }
  HWY_INLINE void widen(Wide* to) const {
    for (int quad = 0; quad < block_depth(kFormat) / 4; ++quad) {
      VU8 w[kVecs];
      load(quad, w);
      for (int i = 0; i < kVecs; ++i) hn::Store(w[i], DU8(), to + quad * 4 * kPanel + i * 4 * kVecLanes);
    }
  }

 private:
  template <typename V>
  static HWY_INLINE void place(V low, V high, int i, VU8 (&w)[kVecs]) {
    if constexpr (kVecs == 1) {
      w[0] = hn::Combine(DU8(), high, low);
    } else {
      w[i] = low;
      w[kVecs / 2 + i] = high;
    }
  }
};

struct WideInt4Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt4;
  const std::byte* block;
  const std::uint8_t* codes;

  HWY_INLINE void load(int quad, VU8 (&w)[kVecs]) const {
    for (int i = 0; i < kVecs; ++i) w[i] = hn::Load(DU8(), codes + quad * 4 * kPanel + i * 4 * kVecLanes);
  }
};

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
template <int kRows, int kPanels, typename Codes>
requires(Codes::kFormat == WeightFormat::kInt4) HWY_INLINE
    void add_block(const std::byte* const* x, int block, const Codes (&w)[kPanels], float (*acc)[kPanels][kPanel]) {
  constexpr int kQuads = block_depth(WeightFormat::kInt4) / 4, kFit = 4;  // quads of products that fit into 16 bits
  static_assert(2 * kFit * (kLevelOffset + 31) * kMost7Bits <= 32767);
  const RowBlock* row[kRows];
  for (int m = 0; m < kRows; ++m) row[m] = reinterpret_cast<const RowBlock*>(x[m]) + block;
  const VI16 ones = hn::Set(DI16(), 1);
  Dot16 sum[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) sum[m][p] = zero_dot16();
  for (int first = 0; first < kQuads; first += kFit) {
    VI16 part[kRows][kPanels][kVecs];
    for (int quad = 0; quad < kFit; ++quad) {
      VI8 four[kRows];
      for (int m = 0; m < kRows; ++m) four[m] = hn::BitCast(DI8(), set_four(row[m]->codes + 4 * (first + quad)));
      for (int p = 0; p < kPanels; ++p) {
        VU8 levels[kVecs];
        w[p].load(first + quad, levels);
        for (int i = 0; i < kVecs; ++i)
          for (int m = 0; m < kRows; ++m) {
            const VI16 products = multiply_pairs(levels[i], four[m]);
            part[m][p][i] = quad == 0 ? products : hn::Add(part[m][p][i], products);
          }
      }
    }
    for (int m = 0; m < kRows; ++m)
      for (int p = 0; p < kPanels; ++p)
        for (int i = 0; i < kVecs; ++i) add_pairs(ones, part[m][p][i], i, sum[m][p]);
  }
  for (int p = 0; p < kPanels; ++p) {
    const V16 scale = load16(reinterpret_cast<const BF16*>(w[p].block));
    for (int m = 0; m < kRows; ++m) {
      const VI32 offset = hn::Set(DI32(), kLevelOffset * row[m]->sum);
      const V16 x16 = make16([&](int i) { return hn::ConvertTo(DF(), hn::Sub(total(sum[m][p], i), offset)); });
      store16(fma(x16, mul(scale, set16(row[m]->scale)), load16(acc[m][p])), acc[m][p]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
