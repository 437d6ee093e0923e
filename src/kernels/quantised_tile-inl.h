// The register tile of products with quantised weights: integer dot products over a block of the depth, exact, which
// are then scaled and added to f32 accumulators, block by block in ascending order. So an output is one chain of fused
// multiply-adds over ascending blocks, whatever the batch.
//
// Codes of weights, at most 127, are widened to 16 bits and multiplied in pairs with the 16-bit codes of activations;
// a block's sum of at most 64 * 127 * 32767 fits into 32 bits. Where 16-bit pairs are multiplied and added at once, as
// on x86, that is as fast as 8-bit multiplications, whose pairs need a second addition, and nothing can saturate.

#if defined(FOE_KERNELS_QUANTISED_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_QUANTISED_TILE_INL_H_
#undef FOE_KERNELS_QUANTISED_TILE_INL_H_
#else
#define FOE_KERNELS_QUANTISED_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/vec16-inl.h"
#include "kernels/weight_format.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Repartition<std::int16_t, DF>;
using VI32 = hn::Vec<DI32>;
using VI16 = hn::Vec<DI16>;
constexpr int kPairLanes = 2 * kVecLanes;

constexpr int kUnit = 4;  // k that are unpacked together: two pairs

// Codes of 16 rows and two k: [16][2].
struct Pair16 {
  VI16 v[kVecs];
};

// Sums of products of 16 rows. Some instruction sets keep them in two halves (hn::ReorderWidenMulAccumulate).
struct Dot16 {
  VI32 a[kVecs], b[kVecs];
};

HWY_INLINE Dot16 zero_dot16() {
  Dot16 r;
  for (int i = 0; i < kVecs; ++i) r.a[i] = r.b[i] = hn::Zero(DI32());
  return r;
}
// Adds x[0] * w[.][0] + x[1] * w[.][1].
HWY_INLINE void add_dot16(VI16 x, const Pair16& w, Dot16& sum) {
  for (int i = 0; i < kVecs; ++i) sum.a[i] = hn::ReorderWidenMulAccumulate(DI32(), w.v[i], x, sum.a[i], sum.b[i]);
}
HWY_INLINE V16 to_float16(const Dot16& sum) {
  return make16([&](int i) { return hn::ConvertTo(DF(), hn::RearrangeToOddPlusEven(sum.a[i], sum.b[i])); });
}
HWY_INLINE VI16 set_pair(const std::int16_t* x) {
  std::int32_t pair;
  std::memcpy(&pair, x, sizeof pair);
  return hn::BitCast(DI16(), hn::Set(DI32(), pair));
}

// Where a panel's codes are read from, unit by unit.
struct Int8Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt8;
  const std::byte* block;  // with its scales

  HWY_INLINE void load(int unit, Pair16 (&w)[2]) const {
    const hn::Rebind<std::int8_t, DI16> d8;
    const auto* codes = reinterpret_cast<const std::int8_t*>(block + scale_bytes(kFormat)) + unit * kUnit * kPanel;
    for (int p = 0; p < 2; ++p)
      for (int i = 0; i < kVecs; ++i)
        w[p].v[i] = hn::PromoteTo(DI16(), hn::LoadU(d8, codes + p * 2 * kPanel + i * kPairLanes));
  }
};

struct Int4Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt4;
  const std::byte* block;

  HWY_INLINE void load(int unit, Pair16 (&w)[2]) const {
    using DU8 = hn::CappedTag<std::uint8_t, 2 * kPanel>;
    using DI8 = hn::RebindToSigned<DU8>;
    constexpr int kBytes = static_cast<int>(hn::MaxLanes(DU8()));
    const auto levels = hn::LoadDup128(DI8(), kInt4Levels);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block + scale_bytes(kFormat)) + unit * 2 * kPanel;
    for (int i = 0; i < 2 * kPanel / kBytes; ++i) {
      const auto both = hn::LoadU(DU8(), bytes + i * kBytes);
      const auto low = hn::And(both, hn::Set(DU8(), 0xf)), high = hn::ShiftRight<4>(both);
      widen(hn::TableLookupBytes(levels, hn::BitCast(DI8(), low)), i, w[0]);
      widen(hn::TableLookupBytes(levels, hn::BitCast(DI8(), high)), i, w[1]);
    }
  }

 private:
  // Bytes make one vector of 16-bit codes, or two.
  template <typename V>
  static HWY_INLINE void widen(V codes, int i, Pair16& w) {
    using D8 = hn::DFromV<V>;
    if constexpr (hn::MaxLanes(D8()) == kPairLanes) {
      w.v[i] = hn::PromoteTo(DI16(), codes);
    } else {
      w.v[2 * i] = hn::PromoteTo(DI16(), hn::LowerHalf(codes));
      w.v[2 * i + 1] = hn::PromoteTo(DI16(), hn::UpperHalf(hn::Half<D8>(), codes));
    }
  }
};

// Codes that have been widened, with the block that has their scales.
template <WeightFormat kStored>
struct WideCodes {
  static constexpr WeightFormat kFormat = kStored;
  const std::byte* block;
  const std::int16_t* codes;  // [k / 2][16][2]

  HWY_INLINE void load(int unit, Pair16 (&w)[2]) const {
    for (int p = 0; p < 2; ++p)
      for (int i = 0; i < kVecs; ++i)
        w[p].v[i] = hn::Load(DI16(), codes + (2 * unit + p) * 2 * kPanel + i * kPairLanes);
  }
};

// Widens a block's codes to [k / 2][16][2].
template <typename Codes>
HWY_INLINE void widen_block(const Codes& from, std::int16_t* to) {
  for (int unit = 0; unit < block_depth(Codes::kFormat) / kUnit; ++unit) {
    Pair16 w[2];
    from.load(unit, w);
    for (int p = 0; p < 2; ++p)
      for (int i = 0; i < kVecs; ++i) hn::Store(w[p].v[i], DI16(), to + (2 * unit + p) * 2 * kPanel + i * kPairLanes);
  }
}

// acc[m][p] += scale of the block * sum over its k of x[m][k] * code[p][k]. x: pointers to kRows rows' codes.
template <int kRows, int kPanels, typename Codes>
HWY_INLINE void add_quantised_block(const std::int16_t* const* x, std::size_t k, const Codes (&w)[kPanels],
                                    float (*acc)[kPanels][kPanel]) {
  const std::int16_t* row[kRows];
  for (int m = 0; m < kRows; ++m) row[m] = x[m] + k;
  Dot16 sum[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) sum[m][p] = zero_dot16();
  for (int unit = 0; unit < block_depth(Codes::kFormat) / kUnit; ++unit) {
    Pair16 codes[kPanels][2];
    for (int p = 0; p < kPanels; ++p) w[p].load(unit, codes[p]);
    for (int pair = 0; pair < 2; ++pair)
      for (int m = 0; m < kRows; ++m) {
        const VI16 both = set_pair(row[m] + unit * kUnit + 2 * pair);
        for (int p = 0; p < kPanels; ++p) add_dot16(both, codes[p][pair], sum[m][p]);
      }
  }
  for (int p = 0; p < kPanels; ++p) {
    const V16 scale = load16(reinterpret_cast<const BF16*>(w[p].block));
    for (int m = 0; m < kRows; ++m) store16(fma(to_float16(sum[m][p]), scale, load16(acc[m][p])), acc[m][p]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
