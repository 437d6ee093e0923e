// Multiplies a block of rows with a few panels: chooses the register tiles of vectors, or the tile registers, that do
// it.

#if defined(FOE_KERNELS_ROW_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ROW_BLOCK_INL_H_
#undef FOE_KERNELS_ROW_BLOCK_INL_H_
#else
#define FOE_KERNELS_ROW_BLOCK_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/products/pairs_tile-inl.h"
#include "kernels/products/parts.h"
#include "kernels/products/row_range-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// The most rows of a register tile with one panel: enough chains to hide the latency of a multiply-add, and on AVX2 as
// many accumulators as there are registers for besides a panel and an activation. Codes need registers to be decoded
// in, too.
constexpr int kTallest = kVecs == 1 ? 8 : 6;
constexpr int kTallestOfCodes = kVecs == 1 ? 8 : 4;

// If a register holds sixteen floats, there are enough registers for two panels, which share the loads of a row. That
// pays with at least so many rows: with fewer, two streams of weights often come from memory slower than one.
constexpr int kRowsForTwoPanels = 16;
constexpr int kTallestOfDots = 6;
// The fewest rows of a tile. If a block of rows is cut into as few tiles as possible, none has fewer.
template <int kPanels>
constexpr int kShortest = kPanels == 1 ? 1 : 4;
static_assert(kRowsForTwoPanels / (kRowsForTwoPanels / kTallestOfDots + 1) >= kShortest<2>);

// Whether memory is faster in several streams, one for each panel.
bool long_panels(const PackedMatrix& w) {
  constexpr std::size_t kLong = 16384;  // bytes; at the beginning of each stream there is a wait
  return w.panel_stride >= kLong;       // the stride, because views of columns are read one after the other
}

// Return the most rows of a tile with so many panels, and 0 if there is no such tile. Products with codes have tiles of
// one row with kMostPanels panels and of more rows with one; those with dot product instructions also of many rows with
// two.
constexpr int tallest_of_codes(int panels) {
  return panels == 1 ? kTallestOfCodes : panels == kMostPanels ? 1 : 0;
}
constexpr int tallest_of_dots(int panels) {
  return panels == 2 ? kTallestOfDots : tallest_of_codes(panels);
}

// The products of a block of rows, which are kept on the stack until all terms of a sum are added: [row][panel][16].
template <int kPanels>
using Accumulators = float[kMostRows<kPanels>][kPanels][kPanel];

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on. Not inlined, like those for codes,
// because inside other code g++ does not keep a tile's accumulators in registers.
template <typename T, int kRows, int kPanels>
HWY_NOINLINE void multiply_floats(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                  int depth, float* y, std::size_t y_stride) {
  constexpr int kStep = kCacheLine / (kPanel * sizeof(T));
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const auto add = [&](int k, int count) HWY_ATTR {
    const float* from[kRows];
    for (int m = 0; m < kRows; ++m) from[m] = reinterpret_cast<const float*>(x[m]) + k;
    multiply_tile<kRows, kPanels, true>(count, from, 1, reinterpret_cast<const T*>(w) + k * kPanel, kPanel,
                                        panel_stride / sizeof(T), acc);
  };
  int k = 0;
  for (; k + kStep <= depth; k += kStep) {
    const std::size_t at = k * kPanel * sizeof(T), left = (depth - k) * kPanel * sizeof(T);
    const std::size_t ahead = at + distance_ahead<kPanels>(left, panel_stride);
    for (int p = 0; p < kPanels; ++p) read_ahead(w + p * panel_stride + ahead);
    add(k, kStep);
  }
  if (k < depth) add(k, depth - k);
  store_tile(acc, y, y_stride);
}

// y[m * y_stride + 16 p + (0..15)] = row first_row + m of x times panel `panel` + p.
template <int kRows, int kPanels>
void multiply_rows(const Product& product, int first_row, int panel, float* y, std::size_t y_stride,
                   [[maybe_unused]] Meanwhile next = {}) {
  const std::size_t stride = product.w->panel_stride;
  const std::byte* const w = product.w->data + panel * stride;
  const int depth = product.w->depth;
  const std::byte* x[kRows];
  for (int m = 0; m < kRows; ++m) x[m] = row_of(product, first_row + m);
  switch (product.w->format) {
    case WeightFormat::kF32:
      return multiply_floats<float, kRows, kPanels>(x, w, stride, depth, y, y_stride);
    case WeightFormat::kBF16:
      return multiply_floats<BF16, kRows, kPanels>(x, w, stride, depth, y, y_stride);
    case WeightFormat::kInt8:
#if HWY_TARGET == HWY_AVX3
      if constexpr (kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt8, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
#endif
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_int8<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kBF16xBF16:
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_pairs_of_bf16<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kInt4:
#if HWY_TARGET == HWY_AVX3
      if constexpr (kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt4, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
#endif
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_int4<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kQ8_0:
    case WeightFormat::kQ4_1:
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ6_K:
      break;  // multiply_parts()
  }
  FOE_CHECK(false, "no tile of {} rows and {} panels of {}", kRows, kPanels, to_string(product.w->format));
}

// The same for any number of rows up to kRows.
template <int kRows, int kPanels>
void multiply_some_rows(int rows, const Product& product, int first_row, int panel, float* y, std::size_t y_stride,
                        Meanwhile next) {
  if (rows == kRows) return multiply_rows<kRows, kPanels>(product, first_row, panel, y, y_stride, next);
  if constexpr (kRows > kShortest<kPanels>)
    multiply_some_rows<kRows - 1, kPanels>(rows, product, first_row, panel, y, y_stride, next);
}

// Multiplies rows with kPanels panels, kWide of them at a time. Tiles have nearly equal heights, because a tile of one
// row would read its weights for that row alone. The first tile would wait for memory, while later ones find their
// weights in a cache; so with dot product instructions (multiply_dots) each tile prefetches its part of the next
// panels.
template <int kPanels, int kWide>
void multiply_tiles(const Product& product, int first_row, int rows, int panel, float* y, std::size_t y_stride,
                    int tallest) {
  const PackedMatrix& w = *product.w;
  const int tiles = (rows + tallest - 1) / tallest;
  const std::size_t parts = padded_depth(w.format, w.depth) / kInt4Part;
  const std::size_t pieces = std::max<std::size_t>(tiles * parts, 1) * kCacheLine;
  const std::size_t bytes = std::max<std::size_t>(panel_bytes(w.format, w.depth), 1);  // a view has fewer
  const auto lines = static_cast<int>((kWide * bytes + pieces - 1) / pieces);
  for (int p = 0; p < kPanels; p += kWide)
    for (int tile = 0, i = 0, height; tile < tiles; ++tile, i += height) {
      height = (rows - i + tiles - tile - 1) / (tiles - tile);
      const std::size_t at = tile * parts * lines * kCacheLine;
      const std::byte* next = w.data + (panel + p + kWide + at / bytes) * w.panel_stride + at % bytes;
      multiply_some_rows<kTallest, kWide>(height, product, first_row + i, panel + p, y + i * y_stride + p * kPanel,
                                          y_stride, {next, lines});
    }
}

// acc = rows of x times panels [panel, panel + kPanels) of w, for one block of rows. If `tiled` is not null, it has
// these rows from number `rows_before` on.
template <int kPanels>
void multiply_row_block(const Product& product, [[maybe_unused]] const TiledRows* tiled,
                        [[maybe_unused]] int rows_before, int first_row, int rows, int panel,
                        Accumulators<kPanels>& acc, [[maybe_unused]] const ResultLines& results) {
  constexpr std::size_t kStride = kPanels * kPanel;
  if (in_parts(product.w->format)) {
    const PackedMatrix& w = *product.w;
    const std::byte* x[kMostRows<kPanels>];
    for (int i = 0; i < rows; ++i) x[i] = row_of(product, first_row + i);
    return multiply_parts(
        {w.format, x, rows, kPanels, w.data + panel * w.panel_stride, w.panel_stride, w.depth, acc[0][0]});
  }
  const bool codes = rounds_rows(product.w->format), dots = kMayDot && quantised(product.w->format) && dot_products();
#if HWY_TARGET == HWY_AVX3
  if constexpr (kPanels <= 2)
    if (tiled) {
      const PackedMatrix& w = *product.w;
      const auto multiply = w.format == WeightFormat::kInt8   ? &multiply_on_tiles<WeightFormat::kInt8, kPanels>
                            : w.format == WeightFormat::kInt4 ? &multiply_on_tiles<WeightFormat::kInt4, kPanels>
                                                              : &PairsOnTiles<kPanels>::multiply;
      return multiply(*tiled, rows_before / amx::kTileRows, (rows + amx::kTileRows - 1) / amx::kTileRows,
                      w.data + panel * w.panel_stride, w.panel_stride, acc[0][0], results);
    }
#endif
  if constexpr (kPanels > 1)
    if (long_panels(*product.w)) {
      if (rows == 1 && (kPanels == kMostPanels || !codes || dots))
        return multiply_rows<1, kPanels>(product, first_row, panel, acc[0][0], kStride);
      if (rows == 2 && !codes) return multiply_rows<2, 2>(product, first_row, panel, acc[0][0], kStride);
    }
  if constexpr (kVecs == 1 && kPanels % 2 == 0)
    if (rows >= kRowsForTwoPanels && (!codes || dots))
      return multiply_tiles<kPanels, 2>(product, first_row, rows, panel, acc[0][0], kStride,
                                        codes ? kTallestOfDots : kTallest);
  multiply_tiles<kPanels, 1>(product, first_row, rows, panel, acc[0][0], kStride, codes ? kTallestOfCodes : kTallest);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
