// Matrix products for training with operands rounded to bf16 and sums in f32, in the order of tile registers
// (kernels/products/bf16_dot-inl.h): over each 32 k a chain of fused multiply-adds over even k and one over odd k,
// their sum, and then the running sum, which starts from zero or from the old C. Tile registers multiply where the
// processor has them (kernels/cpu.h), and vectors elsewhere, with the same bits. Numbers are rounded like to_bf16(),
// and subnormal numbers count as zeros. Like those of sgemm.h, each call runs on the calling thread, and the bits
// depend neither on blocking nor on the number of rows.
//
// Operands are f32 and rounded where they are read, but for the weights of a layer, which are rounded and packed once
// per step: as pairs, in panels of sixteen columns. A panel is [depth / 32, rounded up][16 pairs of k][16 columns][2
// k], and k beyond the depth and columns beyond the width are zero.
#pragma once

#include <cstddef>
#include <span>

#include "core/dtype.h"
#include "kernels/products/sgemm.h"

namespace foe {

inline constexpr int kPairDepth = 32;              // k whose products have two chains of their own
inline constexpr int kPairTile = kPairDepth * 16;  // numbers of a panel for so many k

// A view of a matrix B [depth, width] as pairs.
struct PairPanels {
  const BF16* data = nullptr;
  int depth = 0;
  int width = 0;
  std::size_t panel_stride = 0;  // numbers from panel to panel
};

constexpr int pair_blocks(int depth) {
  return (depth + kPairDepth - 1) / kPairDepth;
}
inline std::size_t pair_panels_size(int depth, int width) {
  return static_cast<std::size_t>((width + 15) / 16) * pair_blocks(depth) * kPairTile;
}

// Write the panels, panel_stride numbers apart, of B = x [rows.size(), columns] and of B = x^T. Row i of x begins at
// rows[i].
void pack_pairs(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride);
void pack_pairs_transposed(std::span<const float* const> rows, int columns, BF16* panels, std::size_t panel_stride);

// The memory in which products round and pack blocks of their operands. Each thread needs its own.
struct BgemmScratch {
  BgemmScratch();
  AlignedBuffer<BF16> a, b;
};

// C [count, b.width] (+)= A [count, b.depth] B. The rows of C must be distinct.
void bgemm_panels(int count, Rows<const float> a, const PairPanels& b, Rows<float> c, Into into, BgemmScratch& scratch);

// C [m, n] (+)= A^T B over the rows of A [depth, m] and B [depth, n].
void bgemm_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                      BgemmScratch& scratch);

}  // namespace foe
