#include "weights/rearranged.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/formats/stored_blocks.h"

namespace foe {
namespace {

// A tensor that owns its bytes, and where they are to be written.
struct NewTensor {
  Tensor tensor;
  std::byte* bytes;
};

NewTensor new_tensor(DType type, std::vector<std::int64_t> shape, std::string name) {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) elements *= size;
  auto own = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(elements) * size_of(type));
  std::byte* bytes = own->data();
  const std::span<const std::byte> view(*own);
  return {{type, std::move(shape), view, std::move(name), std::move(own)}, bytes};
}

void check_rows(const RowsOf& rows, std::int64_t all) {
  FOE_CHECK(rows.first >= 0 && rows.step >= 1 && rows.count >= 0 &&
                (rows.count == 0 || rows.first + (rows.count - 1) * rows.step < all),
            "{} rows from {} on, by {}, of {}", rows.count, rows.first, rows.step, all);
}

// All numbers that an element can be where the exponent's byte is e.
std::array<BF16, 16> scaled_levels(int e) {
  const float scale = e == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, e - 127);
  std::array<BF16, 16> numbers;
  for (int code = 0; code < 16; ++code) numbers[code] = to_bf16(scale * kFp4Levels[code]);
  return numbers;
}

// Row i of the result is row row_at(i) of the tensor.
template <typename RowAt>
Tensor gathered_rows(const Tensor& tensor, std::int64_t count, RowAt&& row_at) {
  std::vector<std::int64_t> shape = tensor.shape;
  shape[0] = count;
  const std::size_t row = tensor.shape[0] == 0 ? 0 : tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
  NewTensor made = new_tensor(tensor.dtype, std::move(shape), tensor.name);
  for (std::int64_t i = 0; i < count; ++i)
    std::memcpy(made.bytes + i * row, tensor.bytes.data() + row_at(i) * row, row);
  return std::move(made.tensor);
}

}  // namespace

Tensor strided_rows(const Tensor& tensor, const RowsOf& rows) {
  check_rows(rows, tensor.shape[0]);
  return gathered_rows(tensor, rows.count, [&](std::int64_t i) { return rows.first + i * rows.step; });
}

Tensor rows_in_order(const Tensor& tensor, std::span<const int> order) {
  const std::int64_t all = tensor.shape[0];
  for (const int row : order) FOE_CHECK(row >= 0 && row < all, "row {} of {}", row, all);
  return gathered_rows(tensor, static_cast<std::int64_t>(order.size()), [&](std::int64_t i) { return order[i]; });
}

Tensor transposed_rows(const Tensor& tensor, const RowsOf& rows) {
  const std::int64_t columns = tensor.shape[0], all = tensor.shape[1];
  check_rows(rows, all);
  NewTensor made = new_tensor(tensor.dtype, {rows.count, columns}, tensor.name);
  const std::size_t size = size_of(tensor.dtype);
  // So many rows and columns at a time that what is read and what is written stays in a cache.
  constexpr std::int64_t kTile = 64;
  for (std::int64_t r = 0; r < rows.count; r += kTile)
    for (std::int64_t c = 0; c < columns; c += kTile)
      for (std::int64_t k = c; k < std::min(columns, c + kTile); ++k)
        for (std::int64_t i = r; i < std::min(rows.count, r + kTile); ++i)
          std::memcpy(made.bytes + (i * columns + k) * size,
                      tensor.bytes.data() + (k * all + rows.first + i * rows.step) * size, size);
  return std::move(made.tensor);
}

Tensor mxfp4_rows(std::span<const std::byte> codes, std::span<const std::byte> exponents, std::int64_t columns,
                  const RowsOf& rows, std::string name) {
  constexpr int kCodes = kMxfp4Block / 2;  // bytes
  FOE_CHECK(columns > 0 && columns % kMxfp4Block == 0 && codes.size() == exponents.size() * kCodes,
            "{} columns, {} bytes of codes, {} exponents", columns, codes.size(), exponents.size());
  const std::int64_t blocks = columns / kMxfp4Block;
  check_rows(rows, static_cast<std::int64_t>(exponents.size()) / blocks);
  NewTensor made = new_tensor(DType::kBF16, {rows.count, columns}, std::move(name));
  std::byte* out = made.bytes;
  for (std::int64_t i = 0; i < rows.count; ++i)
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t at = (rows.first + i * rows.step) * blocks + b;
      const std::array<BF16, 16> numbers = scaled_levels(static_cast<int>(exponents[at]));
      for (const std::byte pair : codes.subspan(at * kCodes, kCodes))
        for (const int code : {static_cast<int>(pair) & 15, static_cast<int>(pair) >> 4}) {
          std::memcpy(out, &numbers[code], sizeof(BF16));
          out += sizeof(BF16);
        }
    }
  return std::move(made.tensor);
}

}  // namespace foe
