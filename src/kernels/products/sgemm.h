// One-thread matrix products for training, in f32. Threads work on different sequences, so nothing here is parallel.
//
// A linear layer y = x W^T, W [N, K], needs three products: y = x W^T, dx = dy W and dW += dy^T x. The first two take W
// as panels of sixteen output columns (packed once per step, in both orientations); the third packs what it needs
// itself. Every output is one chain of fused multiply-adds over ascending k, begun from zero or from what C holds, so
// neither blocking nor the number of rows nor the instruction set changes a bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"

namespace foe {

// B [depth, width] in panels of sixteen columns, each [depth][16]; columns past the end are zero. Panels may stand
// further apart than their size: then this is the first `depth` rows of a deeper matrix.
template <typename T>
struct Panels {
  const T* data = nullptr;
  int depth = 0;
  int width = 0;
  std::size_t panel_stride = 0;

  Panels() = default;
  Panels(const T* panels, int b_depth, int b_width)
      : Panels(panels, b_depth, b_width, static_cast<std::size_t>(b_depth) * 16) {}
  Panels(const T* panels, int b_depth, int b_width, std::size_t stride)
      : data(panels), depth(b_depth), width(b_width), panel_stride(stride) {}
};

inline std::size_t panels_size(int depth, int width) {
  return static_cast<std::size_t>((width + 15) / 16) * depth * 16;
}

// A matrix of which row i starts at data + (rows ? rows[i] : i) * stride: a plain or a gathered one.
template <typename T>
struct Rows {
  T* data = nullptr;
  std::size_t stride = 0;
  const std::int32_t* rows = nullptr;

  T* row(int i) const { return data + static_cast<std::size_t>(rows ? rows[i] : i) * stride; }
};

// What C held before is overwritten or added to.
enum class Into { kOverwrite, kAdd };

// C [count, b.width] (+)= A [count, b.depth] B. The rows of C must be distinct.
void sgemm_panels(int count, Rows<const float> a, Panels<float> b, Rows<float> c, Into into);

// Packed blocks of sgemm_transposed; one per thread, allocated once.
struct SgemmScratch {
  SgemmScratch();
  AlignedBuffer<float> a, b;
};

// C [m, n] (+)= A^T B over the rows of A [depth, m] and B [depth, n].
void sgemm_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                      SgemmScratch& scratch);

}  // namespace foe
