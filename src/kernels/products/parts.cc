#include "kernels/products/parts.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/formats/float_offset.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/products/parts.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/parts_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// How many vectors of 16 bits hold the codes of a quad: without dot product instructions bytes of eight bits are cut
// into two halves (parts_block-inl.h).
template <WeightFormat kFormat, bool kDots>
constexpr int kPlanes = kFormat == WeightFormat::kQ8_0 && !kDots ? 2 : 1;

template <WeightFormat kFormat>
constexpr int kQuads = part_depth(kFormat) / 4;

// The sums of integers of a part, for 16 outputs. They end as the bits of floats that are kFloatBase larger.
template <WeightFormat kFormat, bool kDots>
struct PartSum {
  VI16 sum[kPlanes<kFormat, false>][kVecs];

  // In q6_k from the offsets, so that sums fit into 16 bits.
  HWY_INLINE void begin(const RowBlockOfParts& row, int part) {
    const VI16 first =
        kFormat == WeightFormat::kQ6_K ? hn::BitCast(DI16(), set_four(row.part_offsets[part])) : hn::Zero(DI16());
    repeat<kPlanes<kFormat, false>>(
        [&](auto plane) FOE_INLINE { repeat<kVecs>([&](auto i) FOE_INLINE { sum[plane][i] = first; }); });
  }
  HWY_INLINE void add(int plane, int i, VU8 w, VI32 x) {
    sum[plane][i] = hn::Add(sum[plane][i], multiply_pairs(w, hn::BitCast(DI8(), x)));
    keep_in_place(sum[plane][i]);
  }
  HWY_INLINE VI32 end(const RowBlockOfParts& row, int part, int i) const {
    Dot16 all = zero_dot16();
    add_pairs(sum[0][i], hn::Set(DI16(), 1), i, all);
    if constexpr (kFormat != WeightFormat::kQ8_0) return hn::Add(total(all, i), hn::Set(DI32(), kFloatOffset));
    add_pairs(sum[kPlanes<kFormat, false> - 1][i], hn::Set(DI16(), 16), i, all);
    return hn::Add(total(all, i), set_four(row.wide_offsets + part));
  }
};
template <WeightFormat kFormat>
struct PartSum<kFormat, true> {
  VI32 sum;

  HWY_INLINE void begin(const RowBlockOfParts& row, int part) {
    if constexpr (kFormat == WeightFormat::kQ8_0) {
      sum = set_four(row.wide_offsets + part);
    } else if constexpr (has_minimums(kFormat)) {
      sum = hn::Set(DI32(), kFloatOffset);
    } else {
      Dot16 all = zero_dot16();
      add_pairs(hn::BitCast(DI16(), set_four(row.part_offsets[part])), hn::Set(DI16(), 1), 0, all);
      sum = hn::Add(total(all, 0), hn::Set(DI32(), kFloatOffset));
    }
  }
  HWY_INLINE void add(int, int, VU8 w, VI32 x) { dot_quads(w, x, sum); }
  HWY_INLINE VI32 end(const RowBlockOfParts&, int, int) const { return sum; }
};

// acc[m][p] += the products of kRowPart of a block, the `of_row`-th ones, of row m and panel p.
template <WeightFormat kFormat, bool kDots, int kRows, int kPanels, typename Block>
HWY_INLINE void add_row_part(const RowBlockOfParts* const (&x)[kRows], const Block* w, int of_row,
                             V16 (*acc)[kPanels]) {
  constexpr int kParts = kRowPart / part_depth(kFormat);
  V16 sums[kRows][kPanels];
  repeat<kParts>([&](auto i) FOE_INLINE {
    const int part = kParts * of_row + i;
    PartSum<kFormat, kDots> sum[kRows][kPanels];
    repeat<kRows>([&](auto m) FOE_INLINE {
      sum[m][0].begin(*x[m], part);
      repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p] = sum[m][0]; });
    });
    repeat<kQuads<kFormat>>([&](auto quad) FOE_INLINE {
      const int k = part * part_depth(kFormat) + 4 * quad;
      repeat<kPanels>([&](auto p) FOE_INLINE { w[p].ahead(part, quad); });
      repeat<kPlanes<kFormat, kDots>>([&](auto plane) FOE_INLINE {
        repeat<kVecs>([&](auto v) FOE_INLINE {
          VU8 four_w[kPanels];
          repeat<kPanels>([&](auto p) FOE_INLINE { four_w[p] = w[p].codes(part, quad, plane, v); });
          repeat<kRows>([&](auto m) FOE_INLINE {
            const VI32 four_x = set_four(x[m]->codes + k);
            repeat<kPanels>([&](auto p) FOE_INLINE { sum[m][p].add(plane, v, four_w[p], four_x); });
          });
        });
      });
    });
    repeat<kPanels>([&](auto p) FOE_INLINE {
      // The scale has so few bits that its product with the base is exact, and so the first part's product is rounded
      // once, as if the base had been subtracted before.
      const V16 scale = w[p].scale(part), less = mul(scale, set16(-kFloatBase));
      repeat<kRows>([&](auto m) FOE_INLINE {
        const V16 codes = make16([&](int v) FOE_INLINE { return hn::BitCast(DF(), sum[m][p].end(*x[m], part, v)); });
        sums[m][p] = i == 0 ? fma(codes, scale, less) : fma(sub(codes, set16(kFloatBase)), scale, sums[m][p]);
      });
    });
  });
  if constexpr (has_minimums(kFormat))
    repeat<kRows>([&](auto m) FOE_INLINE {
      const VF biased = hn::BitCast(DF(), set_four(x[m]->wide_offsets + of_row));
      const V16 codes = sub(make16([&](int) FOE_INLINE { return biased; }), set16(kFloatBase));
      repeat<kPanels>([&](auto p) FOE_INLINE { sums[m][p] = fma(codes, w[p].min(of_row), sums[m][p]); });
    });
  repeat<kRows>([&](auto m) FOE_INLINE {
    const V16 scale = set16(x[m]->scales[of_row]);
    repeat<kPanels>([&](auto p) FOE_INLINE { acc[m][p] = fma(sums[m][p], scale, acc[m][p]); });
  });
}

// One row with kPanels panels from w on, as they are packed.
template <WeightFormat kFormat, bool kDots, int kPanels>
HWY_NOINLINE void multiply_row(const PartsProduct& product, const std::byte* w, float* y) {
  V16 acc[kPanels];
  repeat<kPanels>([&](auto p) FOE_INLINE { acc[p] = zero16(); });
  for (int k = 0, block = 0; k < product.depth; k += kCodeBlock, ++block, w += block_bytes(kFormat)) {
    const RowBlockOfParts* const x[1] = {&row_block<RowBlockOfParts>(product.x[0], block)};
    const std::size_t ahead = distance_ahead<kPanels>(panel_bytes(kFormat, product.depth - k), product.panel_stride);
    using Block = PackedBlock<kFormat, kDots>;
    Block blocks[kPanels];
    repeat<kPanels>([&](auto p) FOE_INLINE { blocks[p] = Block(w + p * product.panel_stride, ahead); });
    // Where there are registers for it, panels take turns with each line, as memory is faster then.
    constexpr int kTogether = kDots ? kPanels : 1;
    for (int part = 0; part < kCodeBlock / kRowPart; ++part)
      repeat<kPanels / kTogether>([&](auto p) FOE_INLINE {
        add_row_part<kFormat, kDots>(x, blocks + p, part, reinterpret_cast<V16(*)[kTogether]>(acc + p));
      });
  }
  repeat<kPanels>([&](auto p) FOE_INLINE { store16(acc[p], y + p * kPanel); });
}

// y[m][p] += a block of `rows` <= kRows rows times kPanels unpacked ones. Rows past the last are computed and dropped.
template <WeightFormat kFormat, bool kDots, int kRows, int kPanels>
HWY_NOINLINE void add_rows(const std::byte* const* x, int rows, int block, const UnpackedBlock<kFormat, kDots>* w,
                           float* y, std::size_t y_stride) {
  const RowBlockOfParts* row[kRows];
  float* to[kRows];
  V16 acc[kRows][kPanels];
  repeat<kRows>([&](auto m) FOE_INLINE {
    const int i = std::min<int>(m, rows - 1);
    row[m] = &row_block<RowBlockOfParts>(x[i], block);
    to[m] = y + i * y_stride;
    repeat<kPanels>([&](auto p) FOE_INLINE { acc[m][p] = load16(to[m] + p * kPanel); });
  });
  for (int part = 0; part < kCodeBlock / kRowPart; ++part) add_row_part<kFormat, kDots>(row, w, part, acc);
  repeat<kRows>(
      [&](auto m) FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { store16(acc[m][p], to[m] + p * kPanel); }); });
}

// The most rows of a tile. Tiles have even heights, for fewer functions.
template <bool kDots>
constexpr int kTallestOfParts = kDots ? 6 : 4;

// Rows times kPanels panels from w on. Each block is unpacked once for all rows.
template <WeightFormat kFormat, bool kDots, int kPanels>
void multiply_rows_of_parts(const PartsProduct& product, const std::byte* w, float* y) {
  constexpr int kTallest = kTallestOfParts<kDots>;
  constexpr std::size_t kLines = block_bytes(kFormat) / kCacheLine;
  const int tiles = (product.rows + kTallest - 1) / kTallest;
  const std::size_t y_stride = static_cast<std::size_t>(product.panels) * kPanel;
  for (int m = 0; m < product.rows; ++m) std::fill_n(y + m * y_stride, kPanels * kPanel, 0.0f);
  UnpackedBlock<kFormat, kDots> blocks[kPanels];
  for (int k = 0, block = 0; k < product.depth; k += kCodeBlock, ++block, w += block_bytes(kFormat)) {
    repeat<kPanels>([&](auto p)
                        FOE_INLINE { blocks[p].unpack(PackedBlock<kFormat, kDots>(w + p * product.panel_stride, 0)); });
    // Each tile prefetches some of the next block or, at the end of these panels, of the first one after them.
    const bool last = k + kCodeBlock >= product.depth;
    const std::byte* const next =
        last ? w + kPanels * product.panel_stride + block_bytes(kFormat) - panel_bytes(kFormat, product.depth)
             : w + block_bytes(kFormat);
    for (int tile = 0, i = 0, height; tile < tiles; ++tile, i += height) {
      height = (product.rows - i + tiles - tile - 1) / (tiles - tile);
      for (std::size_t line = kLines * tile / tiles; line < kLines * (tile + 1) / tiles; ++line)
        for (int p = 0; p < kPanels; ++p) read_ahead(next + p * product.panel_stride + line * kCacheLine);
      const auto add = height <= 2   ? &add_rows<kFormat, kDots, 2, kPanels>
                       : height <= 4 ? &add_rows<kFormat, kDots, 4, kPanels>
                                     : &add_rows<kFormat, kDots, kTallest, kPanels>;
      add(product.x + i, height, block, blocks, y + i * y_stride, y_stride);
    }
  }
}

template <WeightFormat kFormat, bool kDots>
void multiply_panels(const PartsProduct& product) {
  constexpr int kWide = kDots ? 2 : 1, kStreams = 4;
  const auto run = [&](int width, const auto& multiply, int& panel) {
    for (; panel + width <= product.panels; panel += width)
      multiply(product, product.w + panel * product.panel_stride, product.y + panel * kPanel);
  };
  int panel = 0;
  if (product.rows == 1) {
    run(kStreams, multiply_row<kFormat, kDots, kStreams>, panel);
    run(1, multiply_row<kFormat, kDots, 1>, panel);
  } else {
    run(kWide, multiply_rows_of_parts<kFormat, kDots, kWide>, panel);
    run(1, multiply_rows_of_parts<kFormat, kDots, 1>, panel);
  }
}

template <bool kDots>
void multiply_format(const PartsProduct& product) {
  switch (product.format) {
    case WeightFormat::kQ8_0:
      return multiply_panels<WeightFormat::kQ8_0, kDots>(product);
    case WeightFormat::kQ4_1:
      return multiply_panels<WeightFormat::kQ4_1, kDots>(product);
    case WeightFormat::kQ4_K:
      return multiply_panels<WeightFormat::kQ4_K, kDots>(product);
    case WeightFormat::kQ6_K:
      return multiply_panels<WeightFormat::kQ6_K, kDots>(product);
    default:
      FOE_CHECK(false, "{} has no parts", to_string(product.format));
  }
}

void multiply_in_parts(const PartsProduct& product) {
  if constexpr (kMayDot)
    if (dot_products()) return multiply_format<true>(product);
  multiply_format<false>(product);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(multiply_in_parts);

}  // namespace

void multiply_parts(const PartsProduct& product) {
  HWY_DYNAMIC_DISPATCH(multiply_in_parts)(product);
}

}  // namespace foe
#endif
