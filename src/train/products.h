// The three matrix products of a linear layer for any floating-point type: in f32 with kernels/products/sgemm.h,
// otherwise with plain loops.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/products/sgemm.h"

namespace foe::train {

// The scratch memory that a thread needs for products.
template <typename T>
struct ProductScratch {};
template <>
struct ProductScratch<float> : SgemmScratch {};

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

// C [m, n] (+)= A^T B over the rows of A [depth, m] and B [depth, n].
template <typename T>
void multiply_transposed(int depth, Rows<const T> a, int m, Rows<const T> b, int n, Rows<T> c, Into into,
                         ProductScratch<T>& scratch) {
  if constexpr (std::is_same_v<T, float>) {
    sgemm_transposed(depth, a, m, b, n, c, into, scratch);
  } else {
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

}  // namespace foe::train
