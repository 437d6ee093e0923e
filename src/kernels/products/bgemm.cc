#include "kernels/products/bgemm.h"

#include <algorithm>

#include "kernels/cpu.h"
#include "kernels/products/flush_subnormals.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/products/bgemm.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/bgemm_tile-inl.h"

#ifndef FOE_KERNELS_BGEMM_CONSTANTS_
#define FOE_KERNELS_BGEMM_CONSTANTS_
namespace foe {

// The sizes of blocks, multiples of what tiles take. Blocks of A and B, 256 KB and at most 512 KB, stay in a
// second-level cache, and C is loaded and stored once for each block of the depth.
constexpr int kBgemmDepth = 512;
constexpr int kBgemmRows = 256;
constexpr int kBgemmWidth = 512;

}  // namespace foe
#endif

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

template <bool kTiles>
void multiply_pair_block(const PairBlock& block) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kTiles) return multiply_on_tile_registers(block);
#endif
  multiply_on_vectors(block);
}

// While it lives, tile registers are ready to use.
template <bool kTiles>
struct Registers {};
#if HWY_TARGET == HWY_AVX3
template <>
struct Registers<true> {
  amx::Tiles tiles;
};
#endif

// Calls body<whether there are tile registers>().
template <typename Body>
void with_tiles_or_not(Body&& body) {
  HWY_TARGET == HWY_AVX3&& tiles() ? body.template operator()<HWY_TARGET == HWY_AVX3>()
                                   : body.template operator()<false>();
}

// Pointers to the rows [begin, begin + count) of x.
void point_to_rows(Rows<const float> x, int begin, int count, const float** rows) {
  for (int i = 0; i < count; ++i) rows[i] = x.row(begin + i);
}

template <bool kTiles>
void multiply_panels(int count, Rows<const float> a, const PairPanels& b, Rows<float> c, Into into,
                     BgemmScratch& scratch) {
  [[maybe_unused]] const Registers<kTiles> registers;
  const float* rows[kBgemmRows];
  for (int m = 0; m < count; m += kBgemmRows) {
    const int some = std::min(kBgemmRows, count - m);
    point_to_rows(a, m, some, rows);
    for (int k = 0; k < b.depth; k += kBgemmDepth) {
      const int depth = std::min(kBgemmDepth, b.depth - k);
      pack_row_tiles<kTiles>(rows, some, depth, scratch.a.data());
      multiply_pair_block<kTiles>({.a = scratch.a.data(),
                                   .b = b.data + static_cast<std::size_t>(k / kPairDepth) * kPairTile,
                                   .panel_stride = b.panel_stride,
                                   .blocks = pair_blocks(depth),
                                   .c = c,
                                   .row = m,
                                   .rows = some,
                                   .column = 0,
                                   .columns = b.width,
                                   .add = k > 0 || into == Into::kAdd});
      for (int i = 0; i < some; ++i) rows[i] += depth;
    }
  }
}

template <bool kTiles>
void multiply_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                         BgemmScratch& scratch) {
  [[maybe_unused]] const Registers<kTiles> registers;
  const float *a_rows[kBgemmDepth], *b_rows[kBgemmDepth];
  for (int column = 0; column < n; column += kBgemmWidth)
    for (int k = 0; k < depth; k += kBgemmDepth) {
      const int some = std::min(kBgemmDepth, depth - k), columns = std::min(kBgemmWidth, n - column);
      point_to_rows(a, k, some, a_rows);
      point_to_rows(b, k, some, b_rows);
      const std::size_t panel = static_cast<std::size_t>(pair_blocks(some)) * kPairTile;
      pack_pair_panels<kTiles>(b_rows, some, column, columns, scratch.b.data(), panel);
      for (int row = 0; row < m; row += kBgemmRows) {
        const int rows = std::min(kBgemmRows, m - row);
        pack_transposed_tiles<kTiles>(a_rows, some, row, rows, scratch.a.data());
        multiply_pair_block<kTiles>({.a = scratch.a.data(),
                                     .b = scratch.b.data(),
                                     .panel_stride = panel,
                                     .blocks = pair_blocks(some),
                                     .c = c,
                                     .row = row,
                                     .rows = rows,
                                     .column = column,
                                     .columns = columns,
                                     .add = k > 0 || into == Into::kAdd});
      }
    }
}

void panels_kernel(int count, Rows<const float> a, const PairPanels& b, Rows<float> c, Into into,
                   BgemmScratch& scratch) {
  with_tiles_or_not([&]<bool kTiles>() { multiply_panels<kTiles>(count, a, b, c, into, scratch); });
}

void transposed_kernel(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                       BgemmScratch& scratch) {
  with_tiles_or_not([&]<bool kTiles>() { multiply_transposed<kTiles>(depth, a, m, b, n, c, into, scratch); });
}

void pairs_kernel(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride) {
  with_tiles_or_not([&]<bool kTiles>() {
    pack_pair_panels<kTiles>(rows.data(), static_cast<int>(rows.size()), 0, columns, panels, panel_stride);
  });
}

void transposed_pairs_kernel(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride) {
  with_tiles_or_not([&]<bool kTiles>() {
    pack_transposed_panels<kTiles>(rows.data(), static_cast<int>(rows.size()), columns, panels, panel_stride);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(panels_kernel);
HWY_EXPORT(transposed_kernel);
HWY_EXPORT(pairs_kernel);
HWY_EXPORT(transposed_pairs_kernel);

}  // namespace

BgemmScratch::BgemmScratch() : a(kBgemmRows * kBgemmDepth), b(kBgemmWidth * kBgemmDepth) {}

void pack_pairs(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(pairs_kernel)(rows, columns, panels, panel_stride);
}

void pack_pairs_transposed(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(transposed_pairs_kernel)(rows, columns, panels, panel_stride);
}

void bgemm_panels(int count, Rows<const float> a, const PairPanels& b, Rows<float> c, Into into,
                  BgemmScratch& scratch) {
  if (b.depth == 0 && into == Into::kOverwrite) return clear(c, count, b.width);
  const FlushSubnormals flush;
  HWY_DYNAMIC_DISPATCH(panels_kernel)(count, a, b, c, into, scratch);
}

void bgemm_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                      BgemmScratch& scratch) {
  if (depth == 0 && into == Into::kOverwrite) return clear(c, m, n);
  const FlushSubnormals flush;
  HWY_DYNAMIC_DISPATCH(transposed_kernel)(depth, a, m, b, n, c, into, scratch);
}

}  // namespace foe
#endif
