#include "kernels/gemm.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm.cc"
#include <hwy/foreach_target.h>

#include "kernels/gemm_tile-inl.h"
#include "kernels/math-inl.h"
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

// Rows whose products are on the stack until all terms of a sum are there: [row][panel][16].
template <int kPanels>
constexpr int kRowBlock = kPanels == kMostPanels ? 1 : 48;
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
  if (quantised(product.w->format)) return product.quantised.data + row * product.quantised.stride;
  return reinterpret_cast<const std::byte*>(product.x + row * product.x_stride);
}

// y[m * y_stride + 16 p + (0..15)] = row first_row + m of x times panel `panel` + p.
template <int kRows, int kPanels>
void multiply_rows(const Product& product, int first_row, int panel, float* y, std::size_t y_stride,
                   Meanwhile next = {}) {
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
      if constexpr (kMayDot && kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt8, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
      if constexpr (kRows <= tallest_of_codes(kPanels))
        return multiply_int8<kRows, kPanels>(x, w, stride, depth, y, y_stride);
      break;
    case WeightFormat::kInt4:
      if constexpr (kMayDot && kRows <= tallest_of_dots(kPanels))
        if (dot_products())
          return multiply_dots<WeightFormat::kInt4, kRows, kPanels>(x, w, stride, depth, y, y_stride, next);
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
  const std::size_t scales = padded_depth(w.format, w.depth) / scale_depth(w.format);
  const std::size_t pieces = std::max<std::size_t>(tiles * scales, 1) * kCacheLine;
  const std::size_t bytes = std::max<std::size_t>(panel_bytes(w.format, w.depth), 1);  // which a view has fewer of
  const auto lines = static_cast<int>((kWide * bytes + pieces - 1) / pieces);
  for (int p = 0; p < kPanels; p += kWide)
    for (int tile = 0, i = 0, height; tile < tiles; ++tile, i += height) {
      height = (rows - i + tiles - tile - 1) / (tiles - tile);
      const std::size_t at = tile * scales * lines * kCacheLine;
      const std::byte* next = w.data + (panel + p + kWide + at / bytes) * w.panel_stride + at % bytes;
      multiply_some_rows<kTallest, kWide>(height, product, first_row + i, panel + p, y + i * y_stride + p * kPanel,
                                          y_stride, {next, lines});
    }
}

// acc = x rows times panels [panel, panel + kPanels) of w, for one block of rows.
template <int kPanels>
void multiply_row_block(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  constexpr std::size_t kStride = kPanels * kPanel;
  const bool codes = quantised(product.w->format);
  if constexpr (kPanels > 1)
    if (long_panels(*product.w)) {
      if (rows == 1 && (kPanels == kMostPanels || !codes || (kMayDot && dot_products())))
        return multiply_rows<1, kPanels>(product, first_row, panel, acc[0][0], kStride);
      if (rows == 2 && !codes) return multiply_rows<2, 2>(product, first_row, panel, acc[0][0], kStride);
    }
  if constexpr (kVecs == 1 && kPanels % 2 == 0)
    if (rows >= kRowsForTwoPanels && (!codes || dot_products()))
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
void multiply_and_add(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  multiply_row_block<kPanels>(product, first_row, rows, panel, acc);
  if (!product.plus) return;
  for_each_output<kPanels>(product, first_row, rows, panel, acc, [&](float* a, std::size_t at, int columns) {
    const float* plus = product.plus + at;
    store16(add(load16(a), columns == kPanel ? load16(plus) : load_first(plus, columns)), a);
  });
}

// Columns of `panel` of every row of a sum. Terms are added as soon as both are there. The merges take the last two
// that wait, always.
template <int kPanels>
void multiply_panels(std::span<const Product> terms, const Merge* merges, int panel) {
  HWY_ALIGN Accumulators<kPanels> open[kMaxOpen];
  const Product& sum = terms.front();
  for (int row = 0; row < sum.count; row += kRowBlock<kPanels>) {
    const int rows = std::min(kRowBlock<kPanels>, sum.count - row), last = static_cast<int>(terms.size()) - 1;
    int waiting = 0, merged = 0;
    for (int j = 0; j <= last; ++j) {
      multiply_and_add<kPanels>(terms[j], row, rows, panel, open[waiting++]);
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
void multiply_run(std::span<const Product> terms, const Merge* merges, int first, int last) {
  int panel = first;
  if (terms.front().count == 1 && long_panels(*terms.front().w))
    for (; panel + kMostPanels <= last; panel += kMostPanels) multiply_panels<kMostPanels>(terms, merges, panel);
  for (; panel + 2 <= last; panel += 2) multiply_panels<2>(terms, merges, panel);
  if (panel < last) multiply_panels<1>(terms, merges, panel);
}

// Panels 2f and 2f + 1 are gate and up of the same 16 hidden units.
template <int kPanels>
void multiply_swiglu_panels(const Product& product, int panel, int width) {
  HWY_ALIGN Accumulators<kPanels> acc;
  for (int row = 0; row < product.count; row += kRowBlock<kPanels>) {
    const int rows = std::min(kRowBlock<kPanels>, product.count - row);
    multiply_row_block<kPanels>(product, row, rows, panel, acc);
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

void multiply_swiglu_run(const Product& product, int first, int last, int width) {
  int panel = first;
  if (product.count == 1 && long_panels(*product.w))
    for (; panel + kMostPanels <= last; panel += kMostPanels)
      multiply_swiglu_panels<kMostPanels>(product, panel, width);
  for (; panel < last; panel += 2) multiply_swiglu_panels<2>(product, panel, width);
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

}  // namespace

void multiply(ThreadPool& pool, std::span<const Product> products) {
  for_each_run(pool, products, 1, [](const Product& product, int first, int last) {
    HWY_DYNAMIC_DISPATCH(multiply_run)({&product, 1}, nullptr, first, last);
  });
}

void multiply_and_sum(ThreadPool& pool, std::span<const Product> products, std::span<const Merge> merges) {
  FOE_CHECK(products.size() == merges.size() + 1, "{} products, {} merges", products.size(), merges.size());
  for (const Product& product : products)
    FOE_CHECK(product.count == products[0].count && product.w->rows == products[0].w->rows, "[{}, {}] and [{}, {}]",
              product.count, product.w->rows, products[0].count, products[0].w->rows);
  for_each_run(pool, products.first(1), 1, [&](const Product&, int first, int last) {
    HWY_DYNAMIC_DISPATCH(multiply_run)(products, merges.data(), first, last);
  });
}

void multiply_swiglu(ThreadPool& pool, std::span<const Product> products, int width) {
  for_each_run(pool, products, 2, [width](const Product& product, int first, int last) {
    HWY_DYNAMIC_DISPATCH(multiply_swiglu_run)(product, first, last, width);
  });
}

}  // namespace foe
#endif
