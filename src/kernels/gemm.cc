#include "kernels/gemm.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/flush_subnormals.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm.cc"
#include <hwy/foreach_target.h>

#include "kernels/amx_product-inl.h"
#include "kernels/gemm_tile-inl.h"
#include "kernels/math-inl.h"
#include "kernels/pairs_tile-inl.h"
#include "kernels/quantised_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kMaxOpen = 16;  // terms of a sum that wait for others: one for each bit of an index of Merge

// The most rows of a tile with one panel: enough chains to hide the latency of a multiply-add, and on AVX2 as many
// accumulators as there are registers for beside a panel and an activation. Codes need some to be decoded in, too.
constexpr int kTallest = kVecs == 1 ? 8 : 6;
constexpr int kTallestOfCodes = kVecs == 1 ? 8 : 4;

// With a register for sixteen floats there are enough of them for two panels, which then share what is loaded of a row.
// That pays from this many rows on: with fewer, two streams of weights often come from memory slower than one.
constexpr int kRowsForTwoPanels = 16;
constexpr int kTallestOfDots = 6;
// The fewest rows of a tile: so many, in as few tiles as can be, leave none with less.
template <int kPanels>
constexpr int kShortest = kPanels == 1 ? 1 : 4;
static_assert(kRowsForTwoPanels / (kRowsForTwoPanels / kTallestOfDots + 1) >= kShortest<2>);

// Panels that one row is multiplied with at a time, where these are long: memory is faster in several streams. Two rows
// of floats have two, and more have one.
constexpr int kMostPanels = 4;
bool long_panels(const PackedMatrix& w) {
  constexpr std::size_t kLong = 16384;  // bytes; the beginning of a stream waits
  return w.panel_stride >= kLong;       // a view of columns goes on where the one before it ends
}

// Of codes, one row is multiplied with kMostPanels, more with one; with dot products, many rows with two.
constexpr int tallest_of_codes(int panels) {
  return panels == 1 ? kTallestOfCodes : panels == kMostPanels ? 1 : 0;
}
constexpr int tallest_of_dots(int panels) {
  return panels == 2 ? kTallestOfDots : tallest_of_codes(panels);
}

// Rows whose products are on the stack until all terms of a sum are there: [row][panel][16]. Tiles take more, which
// then share what is made of the weights for them.
constexpr int kRowBlockOfVectors = 48, kRowBlockOfTiles = 128;
template <int kPanels>
constexpr int kRowBlock = kPanels == kMostPanels ? 1
                          : kMayTile             ? kRowBlockOfTiles
                                                 : kRowBlockOfVectors;
template <int kPanels>
using Accumulators = float[kRowBlock<kPanels>][kPanels][kPanel];

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on. A function of its own, like those for
// codes: among others g++ does not keep a tile's accumulators in registers.
template <typename T, int kRows, int kPanels>
HWY_NOINLINE void multiply_floats(const std::byte* const (&x)[kRows], const std::byte* w, std::size_t panel_stride,
                                  int depth, float* y, std::size_t y_stride) {
  constexpr int kStep = kCacheLine / (kPanel * sizeof(T));
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  const auto add = [&](int k, int count) HWY_ATTR {
    const float* from[kRows];
    for (int m = 0; m < kRows; ++m) from[m] = reinterpret_cast<const float*>(x[m]) + k;
    multiply_tile<kRows, kPanels, true>(count, from, 1, reinterpret_cast<const T*>(w) + k * kPanel, kPanel,
                                        panel_stride / sizeof(T), acc);
  };
  int k = 0;
  for (; k + kStep <= depth; k += kStep) {
    const std::size_t at = k * kPanel * sizeof(T), left = (depth - k) * kPanel * sizeof(T);
    const std::size_t ahead = at + distance_ahead<kPanels>(left, panel_stride);
    for (int p = 0; p < kPanels; ++p) read_ahead(w + p * panel_stride + ahead);
    add(k, kStep);
  }
  if (k < depth) add(k, depth - k);
  store_tile(acc, y, y_stride);
}

// Row i of x, as products with weights in this format take it.
const std::byte* row_of(const Product& product, int i) {
  const std::size_t row = product.rows ? product.rows[i] : i;
  if (rounds_rows(product.w->format)) return product.quantised.data + row * product.quantised.stride;
  return reinterpret_cast<const std::byte*>(product.x + row * product.x_stride);
}

// y[m * y_stride + 16 p + (0..15)] = row first_row + m of x times panel `panel` + p.
template <int kRows, int kPanels>
void multiply_rows(const Product& product, int first_row, int panel, float* y, std::size_t y_stride,
                   [[maybe_unused]] Meanwhile next = {}) {
  const std::size_t stride = product.w->panel_stride;
  const std::byte* const w = product.w->data + panel * stride;
  const int depth = product.w->depth;
  const std::byte* x[kRows];
  for (int m = 0; m < kRows; ++m) x[m] = row_of(product, first_row + m);
  switch (product.w->format) {
    case WeightFormat::kF32:
      return multiply_floats<float, kRows, kPanels>(x, w, stride, depth, y, y_stride);
    case WeightFormat::kBF16:
      return multiply_floats<BF16, kRows, kPanels>(x, w, stride, depth, y, y_stride);
    case WeightFormat::kInt8:
#if HWY_TARGET == HWY_AVX3
      if constexpr (kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt8, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
#endif
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_int8<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kBF16xBF16:
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_pairs_of_bf16<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kInt4:
#if HWY_TARGET == HWY_AVX3
      if constexpr (kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt4, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
#endif
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_int4<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
  }
  FOE_CHECK(false, "no tile of {} rows and {} panels of {}", kRows, kPanels, to_string(product.w->format));
}

// The same for any number of rows that a tile may have, up to kRows.
template <int kRows, int kPanels>
void multiply_some_rows(int rows, const Product& product, int first_row, int panel, float* y, std::size_t y_stride,
                        Meanwhile next) {
  if (rows == kRows) return multiply_rows<kRows, kPanels>(product, first_row, panel, y, y_stride, next);
  if constexpr (kRows > kShortest<kPanels>)
    multiply_some_rows<kRows - 1, kPanels>(rows, product, first_row, panel, y, y_stride, next);
}

// Rows times kPanels panels, kWide of them at a time. Tiles are as equal as can be: one of one row would read its
// weights for that row alone. The first tile would wait for memory, and those after it have theirs in a cache: so each
// asks for its part of the next panels, if it multiplies codes (multiply_dots).
template <int kPanels, int kWide>
void multiply_tiles(const Product& product, int first_row, int rows, int panel, float* y, std::size_t y_stride,
                    int tallest) {
  const PackedMatrix& w = *product.w;
  const int tiles = (rows + tallest - 1) / tallest;
  const std::size_t parts = padded_depth(w.format, w.depth) / kInt4Part;
  const std::size_t pieces = std::max<std::size_t>(tiles * parts, 1) * kCacheLine;
  const std::size_t bytes = std::max<std::size_t>(panel_bytes(w.format, w.depth), 1);  // which a view has fewer of
  const auto lines = static_cast<int>((kWide * bytes + pieces - 1) / pieces);
  for (int p = 0; p < kPanels; p += kWide)
    for (int tile = 0, i = 0, height; tile < tiles; ++tile, i += height) {
      height = (rows - i + tiles - tile - 1) / (tiles - tile);
      const std::size_t at = tile * parts * lines * kCacheLine;
      const std::byte* next = w.data + (panel + p + kWide + at / bytes) * w.panel_stride + at % bytes;
      multiply_some_rows<kTallest, kWide>(height, product, first_row + i, panel + p, y + i * y_stride + p * kPanel,
                                          y_stride, {next, lines});
    }
}

// Rows of a sum: all of them or, if tiles multiply them, as many as stay in a cache, as tiles take them, of each term.
struct RowRange {
  int begin, end;
  const TiledRows* tiled = nullptr;

  template <int kPanels>
  int block() const {
    return tiled ? kRowBlockOfTiles : std::min(kRowBlock<kPanels>, kRowBlockOfVectors);
  }
};

// From so many rows on tiles are faster than vectors, although 16 rows take them as long as one.
constexpr int kFewestTiledRows = 8;

#if HWY_TARGET == HWY_AVX3

// Rows of a product for tiles, which load rows at equal distances, 16 at a time. What is not there like that is copied
// into memory of this thread; it stays there for the other panels of the same product in the same call.
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
    // Zero at first: no output of a row depends on what is past the last one, but scales could be slow to multiply.
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
  // What a row has for a block.
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

// Calls body(rows) for all rows of a sum, so many at a time that those of all terms are in half of a second cache.
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

// Calls body(rows) for all rows of a sum. `call` is another number for each list of products.
template <typename Body>
void for_each_row_range(std::span<const Product> terms, [[maybe_unused]] std::uint64_t call, Body&& body) {
  const Product& sum = terms.front();
#if HWY_TARGET == HWY_AVX3
  if (tiles() && rounds_rows(sum.w->format) && sum.count >= kFewestTiledRows)
    return for_each_tiled_range(terms, call, body);
#endif
  body(RowRange{0, sum.count});
}

// acc = rows of x times panels [panel, panel + kPanels) of w, for one block of rows. Those in tiles, if they are, are
// `rows_before` after the first one.
template <int kPanels>
void multiply_row_block(const Product& product, [[maybe_unused]] const TiledRows* tiled,
                        [[maybe_unused]] int rows_before, int first_row, int rows, int panel,
                        Accumulators<kPanels>& acc, [[maybe_unused]] const ResultLines& results) {
  constexpr std::size_t kStride = kPanels * kPanel;
  const bool codes = rounds_rows(product.w->format), dots = kMayDot && quantised(product.w->format) && dot_products();
#if HWY_TARGET == HWY_AVX3
  if constexpr (kPanels <= 2)
    if (tiled) {
      const PackedMatrix& w = *product.w;
      const auto multiply = w.format == WeightFormat::kInt8   ? &multiply_on_tiles<WeightFormat::kInt8, kPanels>
                            : w.format == WeightFormat::kInt4 ? &multiply_on_tiles<WeightFormat::kInt4, kPanels>
                                                              : &PairsOnTiles<kPanels>::multiply;
      return multiply(*tiled, rows_before / amx::kTileRows, (rows + amx::kTileRows - 1) / amx::kTileRows,
                      w.data + panel * w.panel_stride, w.panel_stride, acc[0][0], results);
    }
#endif
  if constexpr (kPanels > 1)
    if (long_panels(*product.w)) {
      if (rows == 1 && (kPanels == kMostPanels || !codes || dots))
        return multiply_rows<1, kPanels>(product, first_row, panel, acc[0][0], kStride);
      if (rows == 2 && !codes) return multiply_rows<2, 2>(product, first_row, panel, acc[0][0], kStride);
    }
  if constexpr (kVecs == 1 && kPanels % 2 == 0)
    if (rows >= kRowsForTwoPanels && (!codes || dots))
      return multiply_tiles<kPanels, 2>(product, first_row, rows, panel, acc[0][0], kStride,
                                        codes ? kTallestOfDots : kTallest);
  multiply_tiles<kPanels, 1>(product, first_row, rows, panel, acc[0][0], kStride, codes ? kTallestOfCodes : kTallest);
}

// Calls body(accumulator, offset, columns) for the rows of a block and each panel: the offset is that in y.
template <int kPanels, typename Body>
HWY_INLINE void for_each_output(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc,
                                Body&& body) {
  for (int i = 0; i < rows; ++i)
    for (int p = 0; p < kPanels; ++p) {
      const int column = (panel + p) * kPanel;
      body(acc[i][p], (first_row + i) * product.y_stride + column, std::min(kPanel, product.w->rows - column));
    }
}

// acc = x rows times panels + plus, for one block of rows.
template <int kPanels>
void multiply_and_add(const Product& product, const TiledRows* tiled, int rows_before, int first_row, int rows,
                      int panel, Accumulators<kPanels>& acc) {
  // Only the first term of a sum has a place for it.
  const ResultLines results{product.y + first_row * product.y_stride + panel * kPanel, product.y_stride,
                            product.y ? rows : 0, kPanels};
  multiply_row_block<kPanels>(product, tiled, rows_before, first_row, rows, panel, acc, results);
  if (!product.plus) return;
  for_each_output<kPanels>(product, first_row, rows, panel, acc, [&](float* a, std::size_t at, int columns) {
    const float* plus = product.plus + at;
    store16(add(load16(a), columns == kPanel ? load16(plus) : load_first(plus, columns)), a);
  });
}

// Columns of `panel` of some rows of a sum. Terms are added as soon as both are there. The merges take the last two
// that wait, always.
template <int kPanels>
void multiply_panels(std::span<const Product> terms, const Merge* merges, const RowRange& range, int panel) {
  HWY_ALIGN Accumulators<kPanels> open[kMaxOpen];
  const Product& sum = terms.front();
  const int block = range.block<kPanels>();
  for (int row = range.begin; row < range.end; row += block) {
    const int rows = std::min(block, range.end - row), last = static_cast<int>(terms.size()) - 1;
    int waiting = 0, merged = 0;
    for (int j = 0; j <= last; ++j) {
      multiply_and_add<kPanels>(terms[j], range.tiled ? range.tiled + j : nullptr, row - range.begin, row, rows, panel,
                                open[waiting++]);
      for (; merged < last && merges[merged].from <= j; ++merged, --waiting)
        for (int i = 0; i < rows; ++i)
          for (int p = 0; p < kPanels; ++p) {
            float* into = open[waiting - 2][i][p];
            store16(add(load16(into), load16(open[waiting - 1][i][p])), into);
          }
    }
    for_each_output<kPanels>(sum, row, rows, panel, open[0], [&](const float* a, std::size_t at, int columns) {
      if (columns == kPanel)
        store16(load16(a), sum.y + at);
      else
        store_first(load16(a), sum.y + at, columns);
    });
  }
}

// Panels [first, last) of every row of a sum.
void multiply_run(std::span<const Product> terms, const Merge* merges, int first, int last, std::uint64_t call) {
  for_each_row_range(terms, call, [&](const RowRange& range) {
    int panel = first;
    if (terms.front().count == 1 && long_panels(*terms.front().w))
      for (; panel + kMostPanels <= last; panel += kMostPanels)
        multiply_panels<kMostPanels>(terms, merges, range, panel);
    for (; panel + 2 <= last; panel += 2) multiply_panels<2>(terms, merges, range, panel);
    if (panel < last) multiply_panels<1>(terms, merges, range, panel);
  });
}

// Panels 2f and 2f + 1 are gate and up of the same 16 hidden units.
template <int kPanels>
void multiply_swiglu_panels(const Product& product, const RowRange& range, int panel, int width) {
  HWY_ALIGN Accumulators<kPanels> acc;
  const int block = range.block<kPanels>();
  for (int row = range.begin; row < range.end; row += block) {
    const int rows = std::min(block, range.end - row);
    const ResultLines results{product.y + row * product.y_stride + panel / 2 * kPanel, product.y_stride, rows,
                              kPanels / 2};
    multiply_row_block<kPanels>(product, range.tiled, row - range.begin, row, rows, panel, acc, results);
    for (int i = 0; i < rows; ++i)
      for (int p = 0; p < kPanels; p += 2) {
        const V16 h = mul(silu16(load16(acc[i][p])), load16(acc[i][p + 1]));
        const int column = (panel + p) / 2 * kPanel, columns = std::min(kPanel, width - column);
        float* y = product.y + (row + i) * product.y_stride + column;
        if (columns == kPanel)
          store16(h, y);
        else
          store_first(h, y, columns);
      }
  }
}

void multiply_swiglu_run(const Product& product, int first, int last, int width, std::uint64_t call) {
  for_each_row_range({&product, 1}, call, [&](const RowRange& range) {
    int panel = first;
    if (product.count == 1 && long_panels(*product.w))
      for (; panel + kMostPanels <= last; panel += kMostPanels)
        multiply_swiglu_panels<kMostPanels>(product, range, panel, width);
    for (; panel < last; panel += 2) multiply_swiglu_panels<2>(product, range, panel, width);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(multiply_run);
HWY_EXPORT(multiply_swiglu_run);

// Of a panel for so many rows: reading it takes as long as about four rows of arithmetic.
std::size_t cost_of_panel(int rows) {
  return rows + 4;
}

// Cuts [0, total) into runs for so many threads: half of it into one for each, then half of what is left, and so on.
// Memory is faster the longer a thread reads on, and threads finish together if what they take last is short.
class Runs {
 public:
  Runs(std::size_t total, std::size_t threads, std::size_t shortest) : total_(total), threads_(threads) {
    while ((total >> halvings_) / (2 * threads) >= shortest) ++halvings_;
  }
  std::size_t count() const { return (halvings_ + 1) * threads_; }
  std::size_t begin(std::size_t run) const {
    const std::size_t halved = std::min(run / threads_, halvings_), left = total_ >> halved;
    return total_ - left + (run - halved * threads_) * (halved < halvings_ ? left / 2 : left) / threads_;
  }

 private:
  std::size_t total_, threads_, halvings_ = 0;
};

// Calls body(product, first, last) for panels [first, last) of every product that has rows, in one parallel pass. Each
// `together` panels, from a multiple of that on, stay together.
template <typename Body>
void for_each_run(ThreadPool& pool, std::span<const Product> products, int together, Body&& body) {
  constexpr std::size_t kShortest = std::size_t{32} << 10;  // bytes, where they are read for one row
  const auto parts_of = [together](const Product& product) -> std::size_t {
    return product.count == 0 ? 0 : (product.w->panels() + together - 1) / together;
  };
  std::size_t total = 0, shortest = 1;
  for (const Product& product : products)
    if (const std::size_t parts = parts_of(product), cost = together * cost_of_panel(product.count); parts > 0) {
      total += parts * cost;
      const std::size_t panels = kShortest / std::max<std::size_t>(product.w->panel_stride, 1);
      shortest = std::max({shortest, cost, panels * cost_of_panel(1)});
    }
  const Runs runs(total, pool.threads(), shortest);
  pool.parallel_for(total == 0 ? 0 : runs.count(), [&](std::size_t run) {
    const std::size_t begin = runs.begin(run), end = runs.begin(run + 1);
    std::size_t at = 0;
    for (const Product& product : products) {
      const std::size_t parts = parts_of(product), cost = together * cost_of_panel(product.count);
      const auto parts_before = [&](std::size_t cut) {
        return cut <= at ? 0 : std::min(parts, (cut - at + cost - 1) / cost);
      };
      const int first = together * static_cast<int>(parts_before(begin));
      const int last = std::min(together * static_cast<int>(parts_before(end)), product.w->panels());
      if (first < last) body(product, first, last);
      at += parts * cost;
      if (at >= end) break;
    }
  });
}

// Vectors do with subnormal numbers what tiles of bf16 do.
struct FlushWherePairs {
  explicit FlushWherePairs(const Product& product) {
    if (product.w->format == WeightFormat::kBF16xBF16) flush.emplace();
  }
  std::optional<FlushSubnormals> flush;
};

std::uint64_t next_call() {
  static std::atomic<std::uint64_t> calls{0};
  return ++calls;
}

}  // namespace

void multiply(ThreadPool& pool, std::span<const Product> products) {
  for_each_run(pool, products, 1, [call = next_call()](const Product& product, int first, int last) {
    const FlushWherePairs flush(product);
    HWY_DYNAMIC_DISPATCH(multiply_run)({&product, 1}, nullptr, first, last, call);
  });
}

void multiply_and_sum(ThreadPool& pool, std::span<const Product> products, std::span<const Merge> merges) {
  FOE_CHECK(products.size() == merges.size() + 1, "{} products, {} merges", products.size(), merges.size());
  for (const Product& product : products)
    FOE_CHECK(product.count == products[0].count && product.w->rows == products[0].w->rows, "[{}, {}] and [{}, {}]",
              product.count, product.w->rows, products[0].count, products[0].w->rows);
  for_each_run(pool, products.first(1), 1, [&, call = next_call()](const Product& sum, int first, int last) {
    const FlushWherePairs flush(sum);
    HWY_DYNAMIC_DISPATCH(multiply_run)(products, merges.data(), first, last, call);
  });
}

void multiply_swiglu(ThreadPool& pool, std::span<const Product> products, int width) {
  for_each_run(pool, products, 2, [width, call = next_call()](const Product& product, int first, int last) {
    const FlushWherePairs flush(product);
    HWY_DYNAMIC_DISPATCH(multiply_swiglu_run)(product, first, last, width, call);
  });
}

}  // namespace foe
#endif
