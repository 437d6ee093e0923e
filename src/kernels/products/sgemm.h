// Matrix products for training, in f32. Each call runs on the calling thread: in training, threads work on different
// sequences.
//
// A linear layer y = x W^T with W [N, K] needs three products: y = x W^T, dx = dy W and dW += dy^T x. The first two
// take W as panels of sixteen output columns, which are packed once per step in both orientations; the third packs its
// operands itself. Every output is one chain of fused multiply-adds over ascending k, which starts from zero or from
// the old C, so the bits depend neither on blocking, nor on the number of rows, nor on the instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/aligned.h"

namespace foe {

// A view of a matrix B [depth, width] in panels of sixteen columns, each [depth][16]. Columns beyond the end are zero.
// If panels are further apart than their size, this is the first `depth` rows of a deeper matrix.
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

// A view of a matrix whose row i begins at data + (rows ? rows[i] : i) * stride: a plain or a gathered one.
template <typename T>
struct Rows {
  T* data = nullptr;
  std::size_t stride = 0;
  const std::int32_t* rows = nullptr;

  T* row(int i) const { return data + static_cast<std::size_t>(rows ? rows[i] : i) * stride; }
};

// Whether the old C is overwritten or added to.
enum class Into { kOverwrite, kAdd };

// C [m, n] = 0: the product over no terms.
inline void clear(Rows<float> c, int m, int n) {
  for (int i = 0; i < m; ++i) std::fill_n(c.row(i), n, 0.0f);
}

// C [count, b.width] (+)= A [count, b.depth] B. The rows of C must be distinct.
void sgemm_panels(int count, Rows<const float> a, Panels<float> b, Rows<float> c, Into into);

// The memory in which sgemm_transposed() packs blocks. Each thread needs its own.
struct SgemmScratch {
  SgemmScratch();
  AlignedBuffer<float> a, b;
};

// C [m, n] (+)= A^T B over the rows of A [depth, m] and B [depth, n].
void sgemm_transposed(int depth, Rows<const float> a, int m, Rows<const float> b, int n, Rows<float> c, Into into,
                      SgemmScratch& scratch);

}  // namespace foe
