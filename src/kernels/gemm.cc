#include "kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include <hwy/cache_control.h>

#include "base/check.h"
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

constexpr int kStreamBlock = 32;  // k between prefetches, where weights are used once
constexpr int kDepthBlock = 256;  // k per pass over a row block: two f32 panels of it are 32 KB, one first-level cache
constexpr int kRowBlock = 48;     // rows whose accumulators stay on the stack; a multiple of every tile height
constexpr int kMaxOpen = 16;      // terms of a sum that wait for others: one for each bit of an index of Merge

// Accumulators of one row block against kPanels panels: [row][panel][16].
template <int kPanels>
using Accumulators = float[kRowBlock][kPanels][kPanel];

// acc[0..kRows) += x rows times one depth block of panels b (panel stride in elements).
template <int kRows, int kPanels, typename T>
HWY_INLINE void add_block(int depth, const float* const* x, const T* b, std::size_t panel_stride, bool first,
                          float (*acc)[kPanels][kPanel]) {
  V16 tile[kRows][kPanels];
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) tile[m][p] = first ? zero16() : load16(acc[m][p]);
  multiply_tile<kRows, kPanels, true>(depth, x, 1, b, kPanel, panel_stride, tile);
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p) store16(tile[m][p], acc[m][p]);
}

// The same for any number of rows up to kRows: the remainder picks its own tile height.
template <int kRows, int kPanels, typename T>
HWY_INLINE void add_rows(int rows, int depth, const float* const* x, const T* b, std::size_t panel_stride, bool first,
                         float (*acc)[kPanels][kPanel]) {
  if (rows == kRows) return add_block<kRows, kPanels>(depth, x, b, panel_stride, first, acc);
  if constexpr (kRows > 1) add_rows<kRows - 1, kPanels>(rows, depth, x, b, panel_stride, first, acc);
}

// The tile height that fills the registers with accumulators.
template <int kPanels>
constexpr int kTileHeight = kManyRegisters ? 8 : (kPanels == 1 ? 6 : 3);

// Asks for bytes that are used a little later: processors do so by themselves only within a page, and not far enough
// for all of memory's width.
HWY_INLINE void prefetch(const std::byte* at, std::size_t bytes) {
  constexpr std::size_t kAhead = 4096, kLine = 64;
  for (std::size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + kAhead + i, 0, 2);
}

int row_of(const Product& product, int i) {
  return product.rows ? product.rows[i] : i;
}

// acc = x rows times panels [panel, panel + kPanels) of w, for one block of rows.
template <int kPanels, typename T>
void multiply_floats(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  constexpr int kRows = kTileHeight<kPanels>;
  const int depth = product.w->depth;
  const std::size_t panel_size = product.w->panel_stride / sizeof(T);
  const T* w = reinterpret_cast<const T*>(product.w->data) + panel * panel_size;
  HWY_ALIGN float widened[kPanels][kDepthBlock][kPanel];
  const float* x[kRowBlock];

  const bool once = rows <= kRows;
  // More than one tile of rows reads a block again: widen it to f32 once.
  const bool widen = !std::is_same_v<T, float> && !once;
  const int step = once ? kStreamBlock : kDepthBlock;
  // At least once: a matrix without depth (a rank without heads) gives zeros.
  for (int k = 0; k == 0 || k < depth; k += step) {
    const int block = std::min(step, depth - k);
    for (int i = 0; i < rows; ++i) x[i] = product.x + row_of(product, first_row + i) * product.x_stride + k;
    if (once)
      for (int p = 0; p < kPanels; ++p)
        prefetch(reinterpret_cast<const std::byte*>(w + p * panel_size + k * kPanel), block * kPanel * sizeof(T));
    if (widen)
      for (int p = 0; p < kPanels; ++p)
        for (int j = 0; j < block; ++j) store16(load16(w + p * panel_size + (k + j) * kPanel), widened[p][j]);
    for (int i = 0; i < rows; i += kRows) {
      const int tile = std::min(kRows, rows - i);
      if (widen)
        add_rows<kRows, kPanels>(tile, block, x + i, widened[0][0], kDepthBlock * kPanel, k == 0, acc + i);
      else
        add_rows<kRows, kPanels>(tile, block, x + i, w + k * kPanel, panel_size, k == 0, acc + i);
    }
  }
}

// acc[0..rows) += those rows times one block of the depth, rows <= kRows.
template <int kRows, int kPanels, typename Codes>
HWY_INLINE void add_block_rows(int rows, const std::byte* const* x, int block, const Codes (&w)[kPanels],
                               float (*acc)[kPanels][kPanel]) {
  if (rows == kRows) return add_block<kRows, kPanels>(x, block, w, acc);
  if constexpr (kRows > 1) add_block_rows<kRows - 1, kPanels>(rows, x, block, w, acc);
}

// The same with quantised weights. More than one tile of rows reads a block again: its codes are widened once.
template <int kPanels, typename Codes, typename WideCodes>
void multiply_codes(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  constexpr int kRows = kTileHeight<kPanels>, kBlock = block_depth(Codes::kFormat), kChunk = kDepthBlock / kBlock;
  const PackedMatrix& matrix = *product.w;
  const int blocks = (matrix.depth + kBlock - 1) / kBlock;
  const auto codes_of = [&](int p, int b) {
    return Codes{matrix.data + (panel + p) * matrix.panel_stride + b * block_bytes(Codes::kFormat)};
  };
  HWY_ALIGN typename Codes::Wide widened[kPanels][kChunk][kBlock * kPanel];
  const std::byte* x[kRowBlock];
  for (int i = 0; i < rows; ++i) {
    x[i] = product.quantised.data + row_of(product, first_row + i) * product.quantised.stride;
    for (int p = 0; p < kPanels; ++p) store16(zero16(), acc[i][p]);
  }
  if (rows <= kRows) {
    for (int b = 0; b < blocks; ++b) {
      Codes codes[kPanels];
      for (int p = 0; p < kPanels; ++p) {
        codes[p] = codes_of(p, b);
        prefetch(codes[p].block, block_bytes(Codes::kFormat));
      }
      add_block_rows<kRows, kPanels>(rows, x, b, codes, acc);
    }
    return;
  }
  for (int chunk = 0; chunk < blocks; chunk += kChunk) {
    const int count = std::min(kChunk, blocks - chunk);
    for (int p = 0; p < kPanels; ++p)
      for (int b = 0; b < count; ++b) codes_of(p, chunk + b).widen(widened[p][b]);
    for (int i = 0; i < rows; i += kRows)
      for (int b = 0; b < count; ++b) {
        WideCodes codes[kPanels];
        for (int p = 0; p < kPanels; ++p) codes[p] = {codes_of(p, chunk + b).block, widened[p][b]};
        add_block_rows<kRows, kPanels>(std::min(kRows, rows - i), x + i, chunk + b, codes, acc + i);
      }
  }
}

// Rows of 16-bit codes have one scale, at their end.
template <int kPanels>
void multiply_int8(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  multiply_codes<kPanels, Int8Codes, WideInt8Codes>(product, first_row, rows, panel, acc);
  const std::size_t end = quantised_row_bytes(WeightFormat::kInt8, product.w->depth);
  for (int i = 0; i < rows; ++i) {
    float scale;
    std::memcpy(&scale,
                product.quantised.data + row_of(product, first_row + i) * product.quantised.stride + end - sizeof scale,
                sizeof scale);
    for (int p = 0; p < kPanels; ++p) store16(mul(load16(acc[i][p]), set16(scale)), acc[i][p]);
  }
}

template <int kPanels>
void multiply_row_block(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc) {
  // One row of integers waits for memory, which is faster the fewer places are read at a time.
  if (kPanels > 1 && rows == 1 && quantised(product.w->format)) {
    for (int p = 0; p < kPanels; ++p) {
      Accumulators<1> one;
      multiply_row_block<1>(product, first_row, 1, panel + p, one);
      store16(load16(one[0][0]), acc[0][p]);
    }
    return;
  }
  switch (product.w->format) {
    case WeightFormat::kF32:
      return multiply_floats<kPanels, float>(product, first_row, rows, panel, acc);
    case WeightFormat::kBF16:
      return multiply_floats<kPanels, BF16>(product, first_row, rows, panel, acc);
    case WeightFormat::kInt8:
      return multiply_int8<kPanels>(product, first_row, rows, panel, acc);
    case WeightFormat::kInt4:
      return multiply_codes<kPanels, Int4Codes, WideInt4Codes>(product, first_row, rows, panel, acc);
  }
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
  for (int row = 0; row < sum.count; row += kRowBlock) {
    const int rows = std::min(kRowBlock, sum.count - row), last = static_cast<int>(terms.size()) - 1;
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

void multiply_two_panels(std::span<const Product> terms, const Merge* merges, int panel) {
  if (panel + 2 <= terms.front().w->panels())
    multiply_panels<2>(terms, merges, panel);
  else
    multiply_panels<1>(terms, merges, panel);
}

// Panels 2f and 2f + 1 are gate and up of the same 16 hidden units.
void multiply_swiglu_panels(const Product& product, int panel, int width) {
  HWY_ALIGN Accumulators<2> acc;
  const int columns = std::min(kPanel, width - panel / 2 * kPanel);
  for (int row = 0; row < product.count; row += kRowBlock) {
    const int rows = std::min(kRowBlock, product.count - row);
    multiply_row_block<2>(product, row, rows, panel, acc);
    for (int i = 0; i < rows; ++i) {
      const V16 h = mul(silu16(load16(acc[i][0])), load16(acc[i][1]));
      float* y = product.y + (row + i) * product.y_stride + panel / 2 * kPanel;
      if (columns == kPanel)
        store16(h, y);
      else
        store_first(h, y, columns);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(multiply_two_panels);
HWY_EXPORT(multiply_swiglu_panels);

int panel_pairs(const Product& product) {
  return product.count == 0 ? 0 : (product.w->panels() + 1) / 2;
}

// Calls body(product, panel) for every second panel of every product, in one parallel pass. Tasks are taken in order,
// so threads that finish early go on with what is left, whichever product it belongs to. A task is `run` pairs of one
// product: where weights are used once or twice, memory is faster the longer a thread reads on.
template <typename Body>
void for_each_panel_pair(ThreadPool& pool, std::span<const Product> products, Body&& body) {
  constexpr std::size_t kRunBytes = std::size_t{256} << 10, kTasksPerThread = 4;
  std::size_t pairs = 0, bytes = 0, rows = 0;
  for (const Product& product : products) {
    pairs += panel_pairs(product);
    bytes += product.count == 0 ? 0 : product.w->bytes();
    rows = std::max<std::size_t>(rows, product.count);
  }
  if (pairs == 0) return;
  const std::size_t most = pairs / (kTasksPerThread * pool.threads());
  const auto run = static_cast<int>(std::clamp<std::size_t>(kRunBytes * pairs / std::max<std::size_t>(bytes * rows, 1),
                                                            1, std::max<std::size_t>(most, 1)));
  const auto tasks_of = [run](const Product& product) {
    return static_cast<std::size_t>((panel_pairs(product) + run - 1) / run);
  };
  std::size_t tasks = 0;
  for (const Product& product : products) tasks += tasks_of(product);
  pool.parallel_for(tasks, [&](std::size_t task) {
    const Product* product = products.data();
    for (; task >= tasks_of(*product); ++product) task -= tasks_of(*product);
    const int first = static_cast<int>(task) * run;
    for (int pair = first; pair < std::min(first + run, panel_pairs(*product)); ++pair) body(*product, 2 * pair);
  });
}

}  // namespace

void multiply(ThreadPool& pool, std::span<const Product> products) {
  for_each_panel_pair(pool, products, [](const Product& product, int panel) {
    HWY_DYNAMIC_DISPATCH(multiply_two_panels)({&product, 1}, nullptr, panel);
  });
}

void multiply_and_sum(ThreadPool& pool, std::span<const Product> products, std::span<const Merge> merges) {
  FOE_CHECK(products.size() == merges.size() + 1, "{} products, {} merges", products.size(), merges.size());
  for (const Product& product : products)
    FOE_CHECK(product.count == products[0].count && product.w->rows == products[0].w->rows, "[{}, {}] and [{}, {}]",
              product.count, product.w->rows, products[0].count, products[0].w->rows);
  for_each_panel_pair(pool, products.first(1), [&](const Product&, int panel) {
    HWY_DYNAMIC_DISPATCH(multiply_two_panels)(products, merges.data(), panel);
  });
}

void multiply_swiglu(ThreadPool& pool, std::span<const Product> products, int width) {
  for_each_panel_pair(pool, products, [width](const Product& product, int panel) {
    HWY_DYNAMIC_DISPATCH(multiply_swiglu_panels)(product, panel, width);
  });
}

}  // namespace foe
#endif
