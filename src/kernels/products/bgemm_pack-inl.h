// Rounds f32 to bf16 in the forms that products of pairs take (kernels/products/bgemm.h). A tile has 16 lines of 64
// bytes. A tile of rows has a line of 32 k for each of 16 rows, and a tile of pairs has a line of 16 columns for each
// of 16 pairs of k: each is the other's transposed, if a pair is taken as one number of 32 bits.

#if defined(FOE_KERNELS_BGEMM_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_BGEMM_PACK_INL_H_
#undef FOE_KERNELS_BGEMM_PACK_INL_H_
#else
#define FOE_KERNELS_BGEMM_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/products/bf16_dot-inl.h"
#include "kernels/products/bgemm.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

static_assert(kPairDepth == kDotDepth && kPairTile == kDotLines * kPairLine);

// The bits of two vectors of sixteen numbers, rounded: of `odd` in the upper halves of 32 bits, and of `even` in the
// lower ones.
HWY_INLINE V16 join_rounded(V16 even, V16 odd) {
  const hn::RebindToUnsigned<DF> d;
  const V16 low = round_to_bf16(even), high = round_to_bf16(odd);
  return make16([&](int i) {
    return hn::BitCast(DF(), hn::Or(hn::ShiftRight<16>(hn::BitCast(d, low.v[i])), hn::BitCast(d, high.v[i])));
  });
}

#if HWY_TARGET == HWY_AVX3

// Returns both vectors rounded, one after the other. The processor's instruction makes zeros of subnormal numbers, of
// which rounding makes zeros or the smallest normal number: then the lanes are rounded one by one.
HWY_INLINE __m512i round_both(V16 first, V16 second) {
  constexpr int kSubnormal = 0x20;
  const __m512 a = first.v[0].raw, b = second.v[0].raw;
  if (HWY_UNLIKELY(_mm512_fpclass_ps_mask(a, kSubnormal) | _mm512_fpclass_ps_mask(b, kSubnormal))) {
    alignas(64) std::uint32_t joined[kLanes16];
    alignas(64) std::uint16_t apart[2 * kLanes16];
    store16(join_rounded(first, second), reinterpret_cast<float*>(joined));
    for (int i = 0; i < kLanes16; ++i) {
      apart[i] = static_cast<std::uint16_t>(joined[i]);
      apart[kLanes16 + i] = static_cast<std::uint16_t>(joined[i] >> 16);
    }
    return _mm512_load_si512(apart);
  }
  __m512i both;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(a), "v"(b));
  return both;
}

#endif

// to[0 .. 32) = 32 numbers of a row. kTiles says that the processor has tile registers, and so an instruction that
// rounds.
template <bool kTiles>
HWY_INLINE void store_row_line(V16 first, V16 second, BF16* to) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kTiles) return _mm512_store_si512(to, round_both(first, second));
#endif
  const hn::Rebind<std::uint16_t, DF> d16;
  const hn::RebindToSigned<DF> d32;
  const V16 both[] = {round_to_bf16(first), round_to_bf16(second)};
  auto* out = reinterpret_cast<std::uint16_t*>(to);
  for (const V16& x : both)
    for (int i = 0; i < kVecs; ++i, out += kVecLanes)
      hn::StoreU(
          hn::DemoteTo(d16, hn::BitCast(d32, hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<DF>(), x.v[i])))), d16,
          out);
}

// to[0 .. 32) = 16 columns of two rows.
template <bool kTiles>
HWY_INLINE void store_pair_line(V16 even, V16 odd, BF16* to) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kTiles) {
    alignas(64) static constexpr std::uint16_t kTurns[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_store_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(kTurns), round_both(even, odd)));
  }
#endif
  store16(join_rounded(even, odd), reinterpret_cast<float*>(to));
}

// Turns a tile of rows into one of pairs, or the other way.
HWY_INLINE void transpose_tile(const BF16* from, BF16* to) {
#if HWY_TARGET == HWY_AVX3
  __m512i x[16], y[16];
  repeat<16>([&](auto i) FOE_INLINE { x[i] = _mm512_load_si512(from + i * kPairLine); });
  repeat<8>([&](auto i) FOE_INLINE {
    y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  });
  // x[4 i + j]: column j of each of four parts of four columns, in rows 4 i .. 4 i + 3
  repeat<4>([&](auto i) FOE_INLINE {
    repeat<2>([&](auto j) FOE_INLINE {
      x[4 * i + 2 * j] = _mm512_unpacklo_epi64(y[4 * i + j], y[4 * i + 2 + j]);
      x[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(y[4 * i + j], y[4 * i + 2 + j]);
    });
  });
  repeat<4>([&](auto j) FOE_INLINE {
    const __m512i a = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), b = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd), d = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
    _mm512_store_si512(to + j * kPairLine, _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_store_si512(to + (4 + j) * kPairLine, _mm512_shuffle_i32x4(c, d, 0x88));
    _mm512_store_si512(to + (8 + j) * kPairLine, _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm512_store_si512(to + (12 + j) * kPairLine, _mm512_shuffle_i32x4(c, d, 0xdd));
  });
#else
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) std::copy_n(from + i * kPairLine + 2 * j, 2, to + j * kPairLine + 2 * i);
#endif
}

// Loads the first n of sixteen numbers, of which there may be none, with zeros in the other lanes.
HWY_INLINE V16 load_some(const float* x, int n) {
  return n >= kLanes16 ? load16(x) : n > 0 ? load_first(x, n) : zero16();
}

// Writes the columns [column, column + 32), of which `columns` exist, of up to 16 rows.
template <bool kTiles>
HWY_INLINE void pack_row_tile(const float* const* rows, int count, int column, int columns, BF16* to) {
  for (int i = 0; i < kLanes16; ++i, to += kPairLine) {
    if (i >= count)
      std::fill_n(to, kPairLine, BF16{});
    else
      store_row_line<kTiles>(load_some(rows[i] + column, columns),
                             load_some(rows[i] + column + kLanes16, columns - kLanes16), to);
  }
}

// Writes the columns [column, column + 16), of which `columns` exist, of up to 32 rows.
template <bool kTiles>
HWY_INLINE void pack_pair_tile(const float* const* rows, int count, int column, int columns, BF16* to) {
  for (int i = 0; i < kPairDepth; i += 2, to += kPairLine)
    store_pair_line<kTiles>(i < count ? load_some(rows[i] + column, columns) : zero16(),
                            i + 1 < count ? load_some(rows[i + 1] + column, columns) : zero16(), to);
}

// Writes B [count, columns] as panels, whose first line is that of k = 0.
template <bool kTiles>
void pack_pair_panels(const float* const* rows, int count, int column, int columns, BF16* panels,
                      std::size_t panel_stride) {
  for (int k = 0; k < count; k += kPairDepth)
    for (int n = 0; n < columns; n += kLanes16)
      pack_pair_tile<kTiles>(
          rows + k, std::min(kPairDepth, count - k), column + n, columns - n,
          panels + n / kLanes16 * panel_stride + static_cast<std::size_t>(k / kPairDepth) * kPairTile);
}

// Writes B = x^T of x [count, columns].
template <bool kTiles>
void pack_transposed_panels(const float* const* rows, int count, int columns, BF16* panels, std::size_t panel_stride) {
  alignas(64) BF16 tile[kPairTile];
  for (int n = 0; n < count; n += kLanes16)
    for (int k = 0; k < columns; k += kPairDepth) {
      pack_row_tile<kTiles>(rows + n, std::min(kLanes16, count - n), k, columns - k, tile);
      transpose_tile(tile, panels + n / kLanes16 * panel_stride + static_cast<std::size_t>(k / kPairDepth) * kPairTile);
    }
}

// Writes A [count, columns] as tiles [rows / 16][columns / 32], both rounded up.
template <bool kTiles>
void pack_row_tiles(const float* const* rows, int count, int columns, BF16* to) {
  for (int m = 0; m < count; m += kLanes16)
    for (int k = 0; k < columns; k += kPairDepth, to += kPairTile)
      pack_row_tile<kTiles>(rows + m, std::min(kLanes16, count - m), k, columns - k, to);
}

// Writes A = x^T in that form, of the columns [column, column + columns) of x, which is read along its rows.
template <bool kTiles>
void pack_transposed_tiles(const float* const* rows, int count, int column, int columns, BF16* to) {
  alignas(64) BF16 tile[kPairTile];
  const std::size_t row_of_tiles = static_cast<std::size_t>(pair_blocks(count)) * kPairTile;
  for (int k = 0; k < count; k += kPairDepth, to += kPairTile)
    for (int m = 0; m < columns; m += kLanes16) {
      pack_pair_tile<kTiles>(rows + k, std::min(kPairDepth, count - k), column + m, columns - m, tile);
      transpose_tile(tile, to + m / kLanes16 * row_of_tiles);
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
