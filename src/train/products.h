// The three matrix products of a linear layer for any floating-point type: in f32 with kernels/products/sgemm.h or, if
// operands are rounded to bf16, with kernels/products/bgemm.h, otherwise with plain loops.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "core/dtype.h"
#include "kernels/products/bgemm.h"
#include "kernels/products/sgemm.h"

namespace foe::train {

// The scratch memory that a thread needs for products.
template <typename T>
struct ProductScratch {};
template <>
struct ProductScratch<float> {
  SgemmScratch plain;
  BgemmScratch rounded;
};

// The operand B of a product: in panels or, if it is rounded to bf16, in panels of pairs.
template <typename T>
struct Operand {
  Panels<T> panels;
  PairPanels pairs;
};

// C [count, b.width] (+)= A [count, b.depth] B
template <typename T>
void multiply_packed(int count, Rows<const T> a, Panels<T> b, Rows<T> c, Into into) {
  if constexpr (std::is_same_v<T, float>) {
    sgemm_panels(count, a, b, c, into);
  } else {
    for (int m = 0; m < count; ++m)
      for (int n = 0; n < b.width; ++n) {
        const T* column = b.data + n / 16 * b.panel_stride + n % 16;
        T sum = into == Into::kAdd ? c.row(m)[n] : 0;
        for (int k = 0; k < b.depth; ++k) sum += a.row(m)[k] * column[k * 16];
        c.row(m)[n] = sum;
      }
  }
}

// The same. A is rounded to bf16 if B is.
template <typename T>
void multiply_packed(int count, Rows<const T> a, const Operand<T>& b, Rows<T> c, Into into,
                     [[maybe_unused]] ProductScratch<T>& scratch) {
  if constexpr (std::is_same_v<T, float>)
    if (b.pairs.data) return bgemm_panels(count, a, b.pairs, c, into, scratch.rounded);
  multiply_packed(count, a, b.panels, c, into);
}

// C [m, n] (+)= A^T B over the rows of A [depth, m] and B [depth, n], both rounded to `precision`, which is f32 or
// bf16.
template <typename T>
void multiply_transposed(DType precision, int depth, Rows<const T> a, int m, Rows<const T> b, int n, Rows<T> c,
                         Into into, ProductScratch<T>& scratch) {
  if constexpr (std::is_same_v<T, float>) {
    if (precision == DType::kBF16)
      bgemm_transposed(depth, a, m, b, n, c, into, scratch.rounded);
    else
      sgemm_transposed(depth, a, m, b, n, c, into, scratch.plain);
  } else {
    FOE_CHECK(precision == DType::kF32, "products in {}", to_string(precision));
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        T sum = into == Into::kAdd ? c.row(i)[j] : 0;
        for (int k = 0; k < depth; ++k) sum += a.row(k)[i] * b.row(k)[j];
        c.row(i)[j] = sum;
      }
  }
}

// Writes x [rows, columns] into the panels of a matrix [depth, width] at (row, column). The rest of the panels does not
// change.
template <typename T>
void fill_panels(Rows<const T> x, int rows, int columns, T* panels, int depth, int row, int column) {
  for (int i = 0; i < rows; ++i) {
    const T* in = x.row(i);
    for (int j = 0, run; j < columns; j += run) {
      const int n = column + j;
      run = std::min(16 - n % 16, columns - j);
      T* out = panels + (static_cast<std::size_t>(n / 16) * depth + row + i) * 16 + n % 16;
      if (run == 16)
        std::copy_n(in + j, 16, out);  // a known length is a few vector moves instead of a call
      else
        std::copy_n(in + j, run, out);
    }
  }
}

// The same for x^T: x [rows, columns] becomes columns [column, column + rows) of rows [row, row + columns).
template <typename T>
void fill_panels_transposed(Rows<const T> x, int rows, int columns, T* panels, int depth, int row, int column) {
  for (int i = 0; i < rows; ++i) {
    const T* in = x.row(i);
    const int n = column + i;
    T* out = panels + (static_cast<std::size_t>(n / 16) * depth + row) * 16 + n % 16;
    for (int j = 0; j < columns; ++j) out[j * 16] = in[j];
  }
}

// Memory for an operand up to [depth, width], which is packed again and again in one precision or the other.
template <typename T>
class OperandMemory {
 public:
  OperandMemory(int depth, int width)
      : depth_(depth),
        panels_(AlignedBuffer<T>::zeroed(panels_size(depth, width))),
        pairs_(std::is_same_v<T, float> ? pair_panels_size(depth, width) : 0) {}

  // Packs B = x [rows, columns], or with `transposed` B = x^T.
  void pack(DType precision, Rows<const T> x, int rows, int columns, bool transposed) {
    rounded_ = precision == DType::kBF16;
    if constexpr (std::is_same_v<T, float>)
      if (rounded_) {
        rows_.clear();
        for (int i = 0; i < rows; ++i) rows_.push_back(x.row(i));
        return (transposed ? pack_pairs_transposed : pack_pairs)(rows_, columns, pairs_.data(), pair_stride());
      }
    if (transposed)
      fill_panels_transposed(x, rows, columns, panels_.data(), depth_, 0, 0);
    else
      fill_panels(x, rows, columns, panels_.data(), depth_, 0, 0);
  }

  // The first rows and columns of what is packed; fewer rows than there are must be a multiple of kPairDepth.
  Operand<T> view(int depth, int width) const {
    if (rounded_) return {{}, {pairs_.data(), depth, width, pair_stride()}};
    return {{panels_.data(), depth, width, static_cast<std::size_t>(depth_) * 16}, {}};
  }

 private:
  std::size_t pair_stride() const { return static_cast<std::size_t>(pair_blocks(depth_)) * kPairTile; }

  int depth_;
  bool rounded_ = false;
  AlignedBuffer<T> panels_;
  AlignedBuffer<BF16> pairs_;
  std::vector<const T*> rows_;
};

}  // namespace foe::train
