// Copies of weights whose order in a file is not that of a row-major matrix [out, in].
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "weights/tensor_file.h"

namespace foe {

// Which rows of a matrix are wanted: `count`, from the `first` on, each `step` behind the one before it.
struct RowsOf {
  std::int64_t first = 0, step = 1, count = 0;
};

// Returns such rows of a tensor [out, in], or such elements of a vector.
Tensor strided_rows(const Tensor& tensor, const RowsOf& rows);
// Returns a tensor's rows in this order, or a vector's elements.
Tensor rows_in_order(const Tensor& tensor, std::span<const int> order);
// Returns such rows of the transpose of a tensor [in, out].
Tensor transposed_rows(const Tensor& tensor, const RowsOf& rows);

// Returns such rows of a matrix in MXFP4 (OCP Microscaling Formats 1.0) as bf16, which has all of its numbers: `codes`
// [out, in / 32, 16] are two elements of four bits (E2M1) in each byte, the first in its lower half, and `exponents`
// [out, in / 32] a byte e for 32 elements, which multiplies them by 2^(e - 127). Where e is 255 they are not numbers,
// and infinite where the product is beyond f32.
Tensor mxfp4_rows(std::span<const std::byte> codes, std::span<const std::byte> exponents, std::int64_t columns,
                  const RowsOf& rows, std::string name);

// The elements that share an exponent.
inline constexpr int kMxfp4Block = 32;

}  // namespace foe
