// The register tiles of products with quantised weights. Integer dot products over a block of k, which are exact, are
// scaled and added to f32 accumulators in ascending order of blocks. So an output is one chain of fused multiply-adds
// over blocks, whatever the batch and whatever instructions multiply the integers:
//
//   int8   Codes of weights and activations, both up to 127, are widened to 16 bits and multiplied in pairs.
//   int4   Levels from 4 to 63 (kInt4Levels + 32), because x86 multiplies bytes only if one is unsigned, times codes of
//          activations. The eight products of a part in a lane, less 32 times its activations' codes, fit into 16 bits;
//          the part's factor multiplies them as they are widened.
//
// AVX-512's dot products (VNNI) multiply bytes and add to 32 bits, and one of the factors must be unsigned. Weights of
// both formats are made unsigned by an offset, those of int4 with a table of all products of a factor and a level
// (VBMI); sums start from minus what the offset adds.

#if defined(FOE_KERNELS_QUANTISED_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_QUANTISED_TILE_INL_H_
#undef FOE_KERNELS_QUANTISED_TILE_INL_H_
#else
#define FOE_KERNELS_QUANTISED_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/formats/quantise.h"
#include "kernels/products/gemm_tile-inl.h"
#include "kernels/products/int8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kPairLanes = 2 * kVecLanes;

// Keeps an addition where it is written. Otherwise g++ moves integer additions together, and keeps their operands on
// the stack until then.
template <typename V>
HWY_INLINE void keep_in_place(V& sum) {
#if HWY_ARCH_X86
  asm("" : "+v"(sum.raw));
#else
  asm("" : "+w"(sum.raw));
#endif
}

// The sums of 16 output rows. Some instruction sets keep them in two halves (hn::ReorderWidenMulAccumulate).
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

// Whether this target may have instructions that add four products to a sum and look up bytes in a table of 64 (AVX-512
// VNNI and VBMI); dot_products() says whether the processor has them. They are written in asm, because Highway's
// targets do not have them.
constexpr bool kMayDot = HWY_TARGET == HWY_AVX3;
// Adds four products of unsigned w and signed x to sum j.
HWY_INLINE void dot_quads([[maybe_unused]] VU8 w, [[maybe_unused]] VI32 x, [[maybe_unused]] VI32& sum) {
#if HWY_TARGET == HWY_AVX3
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
#endif
}

// Returns a vector with the same four bytes of activations in every lane.
HWY_INLINE VI32 set_four(const void* x) {
  std::int32_t four;
  std::memcpy(&four, x, sizeof four);
  return hn::Set(DI32(), four);
}

// Returns a block of a row.
template <typename Block = RowBlock>
HWY_INLINE const Block& row_block(const std::byte* row, std::size_t block) {
  return *reinterpret_cast<const Block*>(row + block * sizeof(Block));
}

// Returns the scales of a panel's block.
template <WeightFormat kFormat>
HWY_INLINE V16 load_scales(const std::byte* block) {
  if constexpr (kFormat == WeightFormat::kInt8)
    return load16(reinterpret_cast<const float*>(block));
  else
    return load16(reinterpret_cast<const BF16*>(block));
}

// acc + sum * scale of the weights * scale of the row.
template <typename Sum>
HWY_INLINE V16 add_block(Sum&& sum, V16 scale, float row_scale, V16 acc) {
  return fma(make16([&](int i) FOE_INLINE { return hn::ConvertTo(DF(), sum(i)); }), mul(scale, set16(row_scale)), acc);
}

// A quad of bytes of sixteen rows, widened to 16 bits: k and k + 2, and k + 1 and k + 3.
struct Halves {
  VI16 even, odd;
};
HWY_INLINE Halves widen_quads(const void* bytes) {
  const VI16 both = hn::LoadU(DI16(), static_cast<const std::int16_t*>(bytes));
  return {hn::ShiftRight<8>(hn::ShiftLeft<8>(both)), hn::ShiftRight<8>(both)};
}

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int8(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt8;
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int k = 0, block = 0; k < depth; k += kCodeBlock, ++block, w += block_bytes(kFormat)) {
    const auto row = [&](int m) FOE_INLINE -> const RowBlock& { return row_block(x[m], block); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - k), panel_stride);
    const auto ahead = [&](const std::byte* at) FOE_INLINE {
      repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(at + p * panel_stride + distance); });
    };
    HWY_ALIGN std::int16_t wide[kRows][2][kCodeBlock / 2];
    Dot16 sum[kRows][kPanels];
    repeat<kRows>([&](auto m) FOE_INLINE {
      for (int i = 0; i < kCodeBlock / 2; i += kPairLanes) {
        const Halves halves = widen_quads(row(m).codes + 2 * i);
        hn::Store(halves.even, DI16(), wide[m][0] + i);
        hn::Store(halves.odd, DI16(), wide[m][1] + i);
      }
      repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p] = zero_dot16(); });
    });
    ahead(w);
#pragma GCC unroll 8
    for (int quad = 0; quad < kCodeBlock / 4; ++quad) {
      const std::byte* codes = w + head_bytes(kFormat) + quad * kCacheLine;
      ahead(codes);
      repeat<kPanels>([&](auto p) FOE_INLINE {
        repeat<kVecs>([&](auto i) FOE_INLINE {
          const Halves four = widen_quads(codes + p * panel_stride + i * 4 * kVecLanes);
          repeat<kRows>([&](auto m) FOE_INLINE {
            add_pairs(hn::BitCast(DI16(), set_four(wide[m][0] + 2 * quad)), four.even, i, sum[m][p]);
            add_pairs(hn::BitCast(DI16(), set_four(wide[m][1] + 2 * quad)), four.odd, i, sum[m][p]);
          });
        });
      });
    }
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales<kFormat>(w + p * panel_stride);
      repeat<kRows>([&](auto m) FOE_INLINE {
        acc[m][p] = add_block([&](int i) FOE_INLINE { return total(sum[m][p], i); }, scale, row(m).scale, acc[m][p]);
      });
    });
  }
  store_tile(acc, y, y_stride);
}

// Returns levels + kLevelOffset for four k of a part, [16 rows][4 k]. `codes` are those of the part, and `quad` is the
// number of the four k.
HWY_INLINE void load_levels(const std::byte* codes, int quad, VU8 (&w)[kVecs]) {
  const VU8 levels = hn::BitCast(DU8(), hn::Add(hn::LoadDup128(DI8(), kInt4Levels), hn::Set(DI8(), kLevelOffset)));
  const auto* line = reinterpret_cast<const std::uint8_t*>(codes + quad / 2 * kCacheLine);
  for (int i = 0; i < kVecs; ++i) {
    const VU8 both = hn::LoadU(DU8(), line + i * 4 * kVecLanes);
    w[i] = hn::TableLookupBytes(levels, quad % 2 == 1 ? hn::ShiftRight<4>(both) : hn::And(both, hn::Set(DU8(), 0xf)));
  }
}

// Returns the factor of part `part` of a block for each row, twice in 16 bits. `choices` are the choices of the block,
// in 32 bits.
HWY_INLINE VI16 load_factors(VI32 choices, int part) {
  constexpr auto kTwice = [](std::int8_t factor) {
    return static_cast<std::int32_t>(0x10001u * static_cast<std::uint16_t>(factor));
  };
  HWY_ALIGN static constexpr std::int32_t kPairs[4] = {kTwice(kInt4Factors[0]), kTwice(kInt4Factors[1]),
                                                       kTwice(kInt4Factors[2]), kTwice(kInt4Factors[3])};
  const VI32 pairs = hn::LoadDup128(DI32(), kPairs), choice = hn::ShiftRightSame(choices, 2 * part);
#if HWY_TARGET == HWY_AVX2
  return VI16{_mm256_castps_si256(_mm256_permutevar_ps(_mm256_castsi256_ps(pairs.raw), choice.raw))};
#elif HWY_TARGET == HWY_AVX3
  return VI16{_mm512_castps_si512(_mm512_permutevar_ps(_mm512_castsi512_ps(pairs.raw), choice.raw))};
#else
  const VI32 first = hn::And(choice, hn::Set(DI32(), 3));  // in each of the four bytes
  const VI32 bytes = hn::Add(hn::Mul(first, hn::Set(DI32(), 0x04040404)), hn::Set(DI32(), 0x03020100));
  return hn::BitCast(DI16(), hn::TableLookupBytes(hn::BitCast(DI8(), pairs), hn::BitCast(DI8(), bytes)));
#endif
}

// The same for int4. There is one loop over parts, also across blocks, because g++ makes slower code of two nested
// loops.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_int4(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kInt4;
  constexpr int kParts = kCodeBlock / kInt4Part, kQuads = kInt4Part / 4;
  constexpr std::size_t kPartBytes = kPanel * kInt4Part / 2;
  // The products without the offset must fit; intermediate sums may wrap around.
  static_assert(2 * kQuads * kMostLevel * kMostCode <= 32767 && 2 * (kMostLevel + kLevelOffset) * kMostCode <= 32767);
  const hn::Rebind<std::uint16_t, DI32> d16;
  V16 acc[kRows][kPanels];
  Dot16 all[kRows][kPanels];
  VI32 choices[kPanels][kVecs];
  clear_tile(acc);
  const int parts = padded_depth(kFormat, depth) / kInt4Part;
  for (int at = 0; at < parts; ++at) {
    const int part = at % kParts;
    const std::byte* codes = w + head_bytes(kFormat) + part * kPartBytes;
    const auto row = [&](int m) FOE_INLINE -> const RowBlock& { return row_block(x[m], at / kParts); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - at * kInt4Part), panel_stride);
    const auto ahead = [&](const std::byte* from) FOE_INLINE {
      repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(from + p * panel_stride + distance); });
    };
    if (part == 0) {
      ahead(w);
      repeat<kPanels>([&](auto p) FOE_INLINE {
        const auto* stored = reinterpret_cast<const std::uint16_t*>(w + p * panel_stride + kPanel * sizeof(BF16));
        repeat<kVecs>(
            [&](auto i) FOE_INLINE { choices[p][i] = hn::PromoteTo(DI32(), hn::LoadU(d16, stored + i * kVecLanes)); });
        repeat<kRows>([&](auto m) FOE_INLINE { all[m][p] = zero_dot16(); });
      });
    }
    VI16 sum[kRows][kPanels][kVecs];
    repeat<kRows>([&](auto m) FOE_INLINE {
      const VI16 begin = hn::BitCast(DI16(), set_four(row(m).part_offsets[part]));
      repeat<kPanels>([&](auto p) FOE_INLINE { repeat<kVecs>([&](auto i) FOE_INLINE { sum[m][p][i] = begin; }); });
    });
#pragma GCC unroll 4
    for (int quad = 0; quad < kQuads; ++quad) {
      if (quad % 2 == 0) ahead(codes + quad / 2 * kCacheLine);
      VI8 four[kRows];
      repeat<kRows>([&](auto m) FOE_INLINE {
        four[m] = hn::BitCast(DI8(), set_four(row(m).codes + part * kInt4Part + 4 * quad));
      });
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
      repeat<kVecs>([&](auto i) FOE_INLINE {
        const VI16 factors = load_factors(choices[p][i], part);
        repeat<kRows>([&](auto m) FOE_INLINE { add_pairs(sum[m][p][i], factors, i, all[m][p]); });
      });
    });
    if (part != kParts - 1) continue;
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales<kFormat>(w + p * panel_stride);
      repeat<kRows>([&](auto m) FOE_INLINE {
        acc[m][p] = add_block([&](int i) FOE_INLINE { return total(all[m][p], i); }, scale, row(m).scale, acc[m][p]);
      });
    });
    w += block_bytes(kFormat);
  }
  store_tile(acc, y, y_stride);
}

// Weights to prefetch meanwhile: so many cache lines with each part of a block.
struct Meanwhile {
  const std::byte* at = nullptr;
  int lines = 0;
};

#if HWY_TARGET == HWY_AVX3

// kInt4Products plus an offset.
HWY_INLINE __m512i int4_table(int offset) {
  return _mm512_add_epi8(_mm512_loadu_si512(kInt4Products.data()), _mm512_set1_epi8(static_cast<char>(offset)));
}

// Looks up the bytes for codes of int4: the lower or upper halves of a line, with the factors of their part.
HWY_INLINE __m512i look_up_int4(__m512i table, __m512i line, int half, __m512i factors) {
  constexpr int kAndThenOr = 0xea;  // (codes & 15) | factors
  const __m512i codes = half == 0 ? line : _mm512_srli_epi16(line, 4);
  const __m512i index = _mm512_ternarylogic_epi32(codes, _mm512_set1_epi8(15), factors, kAndThenOr);
  __m512i bytes;
  asm("vpermb %1, %2, %0" : "=v"(bytes) : "v"(table), "v"(index));
  return bytes;
}

// The choices of a block, with each of a row's two bytes repeated four times, because a row has four bytes of a quad.
struct Int4Choices {
  __m512i bytes[2];

  HWY_INLINE void load(const std::byte* block) {
    const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + kPanel * sizeof(BF16)));
    const __m512i choices = _mm512_cvtepu16_epi32(stored);
    const __m512i first = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    bytes[0] = _mm512_shuffle_epi8(choices, first);
    bytes[1] = _mm512_shuffle_epi8(choices, _mm512_add_epi8(first, _mm512_set1_epi8(1)));
  }
  // Returns the factors of a part as the upper bits of indices into the table.
  HWY_INLINE __m512i factors(int part) const {
    const __m512i byte = bytes[part / 4];
    const __m512i moved = part % 4 == 0   ? _mm512_slli_epi16(byte, 4)
                          : part % 4 == 1 ? _mm512_slli_epi16(byte, 2)
                          : part % 4 == 2 ? byte
                                          : _mm512_srli_epi16(byte, 2);
    return _mm512_and_si512(moved, _mm512_set1_epi8(0x30));
  }
};

// The same for both formats, with the instruction that adds four products to a sum. With many rows two panels are
// multiplied together, so that a load of a row serves both. Several such tiles use the same weights, and only the first
// would wait for memory, so they prefetch the next panels instead of reading ahead in these.
template <WeightFormat kFormat, int kRows, int kPanels>
HWY_NOINLINE void multiply_dots(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                int depth, float* y, std::size_t y_stride, Meanwhile next) {
  constexpr bool kReadsAhead = kPanels != 2, kCodes4 = kFormat == WeightFormat::kInt4;
  constexpr int kLineQuads = kCodes4 ? 2 : 1, kParts = kCodeBlock / kInt4Part, kQuads = kInt4Part / 4;
  [[maybe_unused]] const __m512i table = int4_table(kCodeOffset);
  [[maybe_unused]] Int4Choices choices[kPanels];
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int k = 0, block = 0; k < depth; k += kCodeBlock, ++block, w += block_bytes(kFormat)) {
    const auto row = [&](int m) FOE_INLINE -> const RowBlock& { return row_block(x[m], block); };
    const std::size_t distance = distance_ahead<kPanels>(panel_bytes(kFormat, depth - k), panel_stride);
    const auto ahead = [&](const std::byte* at) FOE_INLINE {
      if constexpr (kReadsAhead)
        repeat<kPanels>([&](auto p) FOE_INLINE { read_ahead(at + p * panel_stride + distance); });
    };
    VI32 sum[kRows][kPanels];
    repeat<kRows>([&](auto m) FOE_INLINE {
      const VI32 begin = set_four(&row(m).offset);
      repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p] = begin; });
    });
    ahead(w);
    if constexpr (kCodes4) repeat<kPanels>([&](auto p) FOE_INLINE { choices[p].load(w + p * panel_stride); });
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      if constexpr (!kReadsAhead)
        for (int i = 0; i < next.lines; ++i, next.at += kCacheLine) read_ahead(next.at);
      [[maybe_unused]] __m512i factors[kPanels];
      if constexpr (kCodes4) repeat<kPanels>([&](auto p) FOE_INLINE { factors[p] = choices[p].factors(part); });
      repeat<kQuads>([&](auto q) FOE_INLINE {
        const int quad = part * kQuads + q;
        const std::byte* line = w + head_bytes(kFormat) + quad / kLineQuads * kCacheLine;
        if (q % kLineQuads == kLineQuads - 1) ahead(line);
        VU8 four_w[kPanels];
        repeat<kPanels>([&](auto p) FOE_INLINE {
          const __m512i codes = _mm512_loadu_si512(line + p * panel_stride);
          if constexpr (kCodes4)
            four_w[p] = VU8{look_up_int4(table, codes, q % 2, factors[p])};
          else
            four_w[p] = hn::Xor(VU8{codes}, hn::Set(DU8(), kCodeOffset));
        });
        repeat<kRows>([&](auto m) FOE_INLINE {
          const VI32 four_x = set_four(row(m).codes + 4 * quad);
          repeat<kPanels>([&](auto p) FOE_INLINE { dot_quads(four_w[p], four_x, sum[m][p]); });
        });
      });
    }
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 scale = load_scales<kFormat>(w + p * panel_stride);
      repeat<kRows>([&](auto m) FOE_INLINE {
        acc[m][p] = add_block([&](int) FOE_INLINE { return sum[m][p]; }, scale, row(m).scale, acc[m][p]);
      });
    });
  }
  store_tile(acc, y, y_stride);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
