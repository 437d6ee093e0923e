#include "kernels/products/sgemm.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/products/sgemm.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/gemm_tile-inl.h"

#ifndef FOE_KERNELS_SGEMM_CONSTANTS_
#define FOE_KERNELS_SGEMM_CONSTANTS_
namespace foe {

// The sizes of blocks. The depth is so large that loading and storing C hardly counts, and most products are no deeper,
// so that C is read once; two panels of this depth are 32 KB. Rows and width are such that a block of A and one of B,
// 144 KB and 256 KB, stay in a second-level cache of 512 KB.
constexpr int kSgemmDepth = 256;
constexpr int kSgemmRows = 144;  // a multiple of every tile height
constexpr int kSgemmWidth = 256;
// A^T of at most this depth is read where it is: a tile's lines stay in the first-level cache, where the next tile
// takes the rest of them.
constexpr int kSgemmInPlace = 128;

// Returns a size for nearly equal blocks of at most `limit`: a short last block would cost as many loads and stores of
// C as a full one.
inline int sgemm_block(int total, int limit) {
  const int blocks = std::max(1, (total + limit - 1) / limit);
  return (total + blocks - 1) / blocks;
}

}  // namespace foe
#endif

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// The arguments of one tile of C, kRows rows times kPanels panels, of which `columns` columns exist.
struct TileArgs {
  int depth;
  const float* const* a;  // kRows pointers
  std::size_t a_step;     // floats from k to k + 1 in a row
  const float* b;         // [panel][k][16], panels b_panel apart
  std::size_t b_panel;
  float* const* c;  // kRows pointers
  std::size_t c_offset;
  int columns;
  bool add;
};

// A tile whose columns all exist. Its loads and stores have no conditions, so that it never leaves the registers.
template <int kRows, int kPanels, bool kUnitStep, bool kAdd>
HWY_INLINE void compute_whole_tile(const TileArgs& t) {
  V16 acc[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) acc[m][p] = kAdd ? load16(t.c[m] + t.c_offset + p * kLanes16) : zero16();
  multiply_tile<kRows, kPanels, kUnitStep>(t.depth, t.a, t.a_step, t.b, kLanes16, t.b_panel, acc);
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) store16(acc[m][p], t.c[m] + t.c_offset + p * kLanes16);
}

template <int kRows, int kPanels, bool kUnitStep>
HWY_NOINLINE void compute_edge_tile(const TileArgs& t) {
  V16 acc[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p)
      acc[m][p] = t.add ? load_first(t.c[m] + t.c_offset + p * kLanes16, std::min(kLanes16, t.columns - p * kLanes16))
                        : zero16();
  multiply_tile<kRows, kPanels, kUnitStep>(t.depth, t.a, t.a_step, t.b, kLanes16, t.b_panel, acc);
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p)
      store_first(acc[m][p], t.c[m] + t.c_offset + p * kLanes16, std::min(kLanes16, t.columns - p * kLanes16));
}

template <int kRows, int kPanels, bool kUnitStep>
void compute_tile(const TileArgs& t) {
  if (t.columns < kPanels * kLanes16) return compute_edge_tile<kRows, kPanels, kUnitStep>(t);
  t.add ? compute_whole_tile<kRows, kPanels, kUnitStep, true>(t)
        : compute_whole_tile<kRows, kPanels, kUnitStep, false>(t);
}

using TileFunction = void (*)(const TileArgs&);

// Returns the function for a tile with so many rows, 1 .. kTileRows.
template <int kPanels, bool kUnitStep>
TileFunction tile_function(int rows) {
  static constexpr auto kTable = []<int... r>(std::integer_sequence<int, r...>) {
    return std::array<TileFunction, sizeof...(r)>{&compute_tile<r + 1, kPanels, kUnitStep>...};
  }
  (std::make_integer_sequence<int, kTileRows>());
  return kTable[rows - 1];
}

template <bool kUnitStep>
TileFunction tile_function(int rows, int panels) {
  return panels == kTilePanels ? tile_function<kTilePanels, kUnitStep>(rows) : tile_function<1, kUnitStep>(rows);
}

// Prefetches the operands of the next tile, at rows [begin, end): A for reading with the first panels, C for writing.
// Gathered rows have no pattern that the hardware would find.
inline void prefetch_tile(int begin, int end, int depth, const float* const* a, float* const* c, std::size_t c_offset,
                          int columns) {
  for (int i = begin; i < end; ++i) {
    for (int k = 0; k < depth; k += kLanes16) __builtin_prefetch(a[i] + k);
    for (int n = 0; n < columns; n += kLanes16) __builtin_prefetch(c[i] + c_offset + n, 1);
  }
}

// Computes all tiles of `rows` rows of A, given by pointers, and all columns of b. The outer loop runs over pairs of
// panels, so that one pair stays in the first-level cache while the block of A is read from the second.
template <bool kUnitStep>
void multiply_rows(int rows, int depth, const float* const* a, std::size_t a_step, const float* b, std::size_t b_panel,
                   int width, float* const* c, std::size_t c_offset, bool add) {
  constexpr int kTileWidth = kTilePanels * kLanes16;
  for (int n = 0; n < width; n += kTileWidth) {
    const int columns = std::min(kTileWidth, width - n);
    const int panels = columns > kLanes16 ? kTilePanels : 1;
    TileArgs t{depth, nullptr, a_step, b + n / kLanes16 * b_panel, b_panel, nullptr, c_offset + n, columns, add};
    for (int m = 0; m < rows; m += kTileRows) {
      t.a = a + m;
      t.c = c + m;
      prefetch_tile(m + kTileRows, std::min(m + 2 * kTileRows, rows), n == 0 && kUnitStep ? depth : 0, a, c,
                    c_offset + n, columns);
      tile_function<kUnitStep>(std::min(kTileRows, rows - m), panels)(t);
    }
  }
}

void panels_kernel(int count, Rows<const float> a, Panels<float> b, Rows<float> c, Into into) {
  const int depth_block = sgemm_block(b.depth, kSgemmDepth);
  const float* a_rows[kSgemmRows];
  float* c_rows[kSgemmRows];
  for (int m = 0; m < count; m += kSgemmRows) {
    const int rows = std::min(kSgemmRows, count - m);
    for (int i = 0; i < rows; ++i) a_rows[i] = a.row(m + i), c_rows[i] = c.row(m + i);
    for (int k = 0; k < b.depth; k += depth_block) {
      const int depth = std::min(depth_block, b.depth - k);
      multiply_rows<true>(rows, depth, a_rows, 1, b.data + k * kLanes16, b.panel_stride, b.width, c_rows, 0,
                          k > 0 || into == Into::kAdd);
      for (int i = 0; i < rows; ++i) a_rows[i] += depth;
    }
  }
}

// out [ceil(columns / kGroup)][depth][kGroup] = rows [k, k + depth) and columns [column, column + columns) of x, padded
// with zeros. kGroup is the width of a panel (for B) or the height of a tile (for A).
template <int kGroup>
void pack_block(Rows<const float> x, int k, int depth, int column, int columns, float* out) {
  for (int i = 0; i < depth; ++i) {
    const float* in = x.row(k + i) + column;
    float* to = out + i * kGroup;
    int n = 0;
    for (; n + kGroup <= columns; n += kGroup, to += static_cast<std::size_t>(depth) * kGroup)
      for (int j = 0; j < kGroup; ++j) to[j] = in[n + j];
    if (n < columns)
      for (int j = 0; j < kGroup; ++j) to[j] = n + j < columns ? in[n + j] : 0.0f;
  }
}

// Columns of A: column i begins at data + i / kTileRows * tile + i % kTileRows, and its numbers are `step` apart.
struct Columns {
  const float* data;
  std::size_t tile, step;
};

// C[m .., n ..] (+)= one block of A^T times one packed block of B.
void multiply_block(int depth, Columns a, int m, int rows, const float* b, int n, int columns, Rows<float> c,
                    bool add) {
  const float* a_rows[kSgemmRows];
  float* c_rows[kSgemmRows];
  for (int i = 0; i < rows; ++i) {
    a_rows[i] = a.data + i / kTileRows * a.tile + i % kTileRows;
    c_rows[i] = c.row(m + i);
  }
  multiply_rows<false>(rows, depth, a_rows, a.step, b, static_cast<std::size_t>(depth) * kLanes16, columns, c_rows, n,
                       add);
}

void transposed_kernel(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                       SgemmScratch& scratch) {
  const int depth_block = sgemm_block(depth, kSgemmDepth);
  const bool in_place = a.rows == nullptr && depth <= kSgemmInPlace;
  for (int column = 0; column < n; column += kSgemmWidth) {
    const int columns = std::min(kSgemmWidth, n - column);
    for (int k = 0; k < depth; k += depth_block) {
      const int block = std::min(depth_block, depth - k);
      pack_block<kLanes16>(b, k, block, column, columns, scratch.b.data());
      for (int row = 0; row < m; row += kSgemmRows) {
        const int rows = std::min(kSgemmRows, m - row);
        if (!in_place) pack_block<kTileRows>(a, k, block, row, rows, scratch.a.data());
        const Columns of_a = in_place ? Columns{a.row(k) + row, kTileRows, a.stride}
                                      : Columns{scratch.a.data(), std::size_t{kTileRows} * block, kTileRows};
        multiply_block(block, of_a, row, rows, scratch.b.data(), column, columns, c, k > 0 || into == Into::kAdd);
      }
    }
  }
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

}  // namespace

SgemmScratch::SgemmScratch() : a(kSgemmRows * kSgemmDepth), b(kSgemmWidth * kSgemmDepth) {}

void sgemm_panels(int count, Rows<const float> a, Panels<float> b, Rows<float> c, Into into) {
  if (b.depth == 0 && into == Into::kOverwrite) return clear(c, count, b.width);
  HWY_DYNAMIC_DISPATCH(panels_kernel)(count, a, b, c, into);
}

void sgemm_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                      SgemmScratch& scratch) {
  if (depth == 0 && into == Into::kOverwrite) return clear(c, m, n);
  HWY_DYNAMIC_DISPATCH(transposed_kernel)(depth, a, m, b, n, c, into, scratch);
}

}  // namespace foe
#endif
