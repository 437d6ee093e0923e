// Which rows of a product are multiplied at a time, and how tiles (AMX) find them.

#if defined(FOE_KERNELS_ROW_RANGE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ROW_RANGE_INL_H_
#undef FOE_KERNELS_ROW_RANGE_INL_H_
#else
#define FOE_KERNELS_ROW_RANGE_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/products/amx_product-inl.h"
#include "kernels/products/gemm.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Row i of x, as products with weights in this format take it.
const std::byte* row_of(const Product& product, int i) {
  const std::size_t row = product.rows ? product.rows[i] : i;
  if (rounds_rows(product.w->format)) return product.quantised.data + row * product.quantised.stride;
  return reinterpret_cast<const std::byte*>(product.x + row * product.x_stride);
}

// The rows of a block: so many share the work that is done once for a panel. Tiles take more rows, because weights have
// to be decoded for them first.
constexpr int kRowBlockOfVectors = 48, kRowBlockOfTiles = 128;

// How many panels one row is multiplied with at a time, if the panels are long: memory is faster in several streams.
constexpr int kMostPanels = 4;
template <int kPanels>
constexpr int kMostRows = kPanels == kMostPanels ? 1
                          : kMayTile             ? kRowBlockOfTiles
                                                 : kRowBlockOfVectors;

// Some rows of a sum. If vectors multiply them, these are all rows. If tiles do, they are as many as stay in a cache,
// and tiled[j] has those of the j-th term in the form that tiles take.
struct RowRange {
  int begin, end;
  const TiledRows* tiled = nullptr;

  template <int kPanels>
  int block() const {
    return tiled ? kRowBlockOfTiles : std::min(kMostRows<kPanels>, kRowBlockOfVectors);
  }
};

// With at least so many rows tiles are faster than vectors, although one row takes them as long as 16.
constexpr int kFewestTiledRows = 8;

#if HWY_TARGET == HWY_AVX3

// Rows of a product for tiles. A tile loads 16 rows at equal distances. Gathered rows, and the last rows if they do not
// fill a tile, are copied into memory of this thread, and are kept for the other panels of the same product in the same
// call.
class RowCopy {
 public:
  const TiledRows& take(const Product& product, int begin, int end, std::uint64_t call) {
    if (call == call_ && &product == product_ && begin == begin_) return tiled_;
    call_ = call, product_ = &product, begin_ = begin;
    const std::size_t stride = product.quantised.stride;
    const int rows = end - begin, whole = rows / amx::kTileRows, blocks = block_count(product);
    const int copied_from = product.rows ? 0 : whole * amx::kTileRows;
    const std::size_t bytes = blocks * block_row_bytes(product);
    const std::size_t room = (rows - copied_from + amx::kTileRows - 1) / amx::kTileRows * amx::kTileRows * stride;
    // The memory is zero at first. No output depends on what is past the last row, but arithmetic could be slow with
    // numbers that happen to be there.
    if (memory_.size() < room) memory_ = AlignedBuffer<std::byte>::zeroed(room);
    for (int i = copied_from; i < rows; ++i)
      std::memcpy(memory_.data() + (i - copied_from) * stride, row_of(product, begin + i), bytes);
    const std::byte* first = product.rows ? memory_.data() : row_of(product, begin);
    const std::byte* last = memory_.data() + (whole * amx::kTileRows - copied_from) * stride;
    tiled_ = {first, stride, last, whole, blocks};
    return tiled_;
  }
  static int block_count(const Product& product) {
    return padded_depth(product.w->format, product.w->depth) / block_depth(product.w->format);
  }
  // Returns how many bytes of a row belong to one block.
  static std::size_t block_row_bytes(const Product& product) {
    return quantised(product.w->format) ? sizeof(RowBlock) : amx::kTileRowBytes;
  }

 private:
  AlignedBuffer<std::byte> memory_;
  TiledRows tiled_;
  std::uint64_t call_ = 0;
  const Product* product_ = nullptr;
  int begin_ = 0;
};

// Calls body(range) until all rows of a sum have been in some range. The rows of all terms in a range take at most half
// of a second-level cache.
template <typename Body>
void for_each_tiled_range(std::span<const Product> terms, std::uint64_t call, Body&& body) {
  constexpr std::size_t kCached = std::size_t{1} << 20, kMost = 512 / kRowBlockOfTiles;
  thread_local std::vector<RowCopy> copies;
  thread_local std::vector<TiledRows> tiled;
  if (copies.size() < terms.size()) copies.resize(terms.size());
  std::size_t row_bytes = 1;
  for (const Product& term : terms) row_bytes += RowCopy::block_count(term) * RowCopy::block_row_bytes(term);
  const auto most =
      static_cast<int>(std::clamp<std::size_t>(kCached / row_bytes / kRowBlockOfTiles, 1, kMost)) * kRowBlockOfTiles;
  const amx::Tiles registers;
  const int count = terms.front().count;
  for (int begin = 0; begin < count; begin += most) {
    const int end = std::min(count, begin + most);
    tiled.clear();
    for (std::size_t j = 0; j < terms.size(); ++j) tiled.push_back(copies[j].take(terms[j], begin, end, call));
    body(RowRange{begin, end, tiled.data()});
  }
}

#endif

// Calls body(range) until all rows of a sum have been in some range. `call` is from next_call().
template <typename Body>
void for_each_row_range(std::span<const Product> terms, [[maybe_unused]] std::uint64_t call, Body&& body) {
  const Product& sum = terms.front();
#if HWY_TARGET == HWY_AVX3
  if (tiles() && rounds_rows(sum.w->format) && !in_parts(sum.w->format) && sum.w->depth > 0 &&
      sum.count >= kFewestTiledRows)
    return for_each_tiled_range(terms, call, body);
#endif
  body(RowRange{0, sum.count});
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
