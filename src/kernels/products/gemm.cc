#include "kernels/products/gemm.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/products/flush_subnormals.h"
#include "kernels/products/runs.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/products/gemm.cc"
#include <hwy/foreach_target.h>

#include "kernels/formats/row_block-inl.h"
#include "kernels/math-inl.h"
#include "kernels/products/row_range-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kMaxOpen = 16;  // terms of a sum that wait to be added: at most one for each bit of Merge's indices

// Calls body(accumulator, row, column, columns) for each row of a block of rows and each panel: `accumulator` has the
// outputs of `row` from `column` on, 16 of them, of which `columns` exist.
template <int kPanels, typename Body>
HWY_INLINE void for_each_output(const Product& product, int first_row, int rows, int panel, Accumulators<kPanels>& acc,
                                Body&& body) {
  for (int i = 0; i < rows; ++i)
    for (int p = 0; p < kPanels; ++p) {
      const int column = (panel + p) * kPanel;
      body(acc[i][p], first_row + i, column, std::min(kPanel, product.w->rows - column));
    }
}

// acc = rows of x times panels (+ plus), for one block of rows.
template <int kPanels>
void multiply_and_add(const Product& product, const TiledRows* tiled, int rows_before, int first_row, int rows,
                      int panel, Accumulators<kPanels>& acc) {
  // In a sum only the first term has a y, where the result will be written.
  const ResultLines results{product.y + first_row * product.y_stride + panel * kPanel, product.y_stride,
                            product.y ? rows : 0, kPanels};
  multiply_row_block<kPanels>(product, tiled, rows_before, first_row, rows, panel, acc, results);
  if (!product.plus) return;
  for_each_output<kPanels>(product, first_row, rows, panel, acc, [&](float* a, int row, int column, int columns) {
    const float* plus = product.plus + row * product.plus_stride + column;
    store16(add(load16(a), columns == kPanel ? load16(plus) : load_first(plus, columns)), a);
  });
}

// Computes kPanels panels of outputs for some rows of a sum. Two terms are added as soon as both are there. `open` is a
// stack: the next merge always adds the last term that waits to the one before it.
template <int kPanels>
void multiply_sum_panels(std::span<const Product> terms, const Merge* merges, const RowRange& range, int panel) {
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
    for_each_output<kPanels>(sum, row, rows, panel, open[0], [&](const float* a, int i, int column, int columns) {
      float* const y = sum.y + i * sum.y_stride + column;
      if (columns == kPanel)
        store16(load16(a), y);
      else
        store_first(load16(a), y, columns);
    });
  }
}

// Computes panels [first, last) for every row of a sum.
void multiply_run(std::span<const Product> terms, const Merge* merges, int first, int last, std::uint64_t call) {
  for_each_row_range(terms, call, [&](const RowRange& range) {
    int panel = first;
    if (terms.front().count == 1 && long_panels(*terms.front().w))
      for (; panel + kMostPanels <= last; panel += kMostPanels)
        multiply_sum_panels<kMostPanels>(terms, merges, range, panel);
    for (; panel + 2 <= last; panel += 2) multiply_sum_panels<2>(terms, merges, range, panel);
    if (panel < last) multiply_sum_panels<1>(terms, merges, range, panel);
  });
}

// Panels 2f and 2f + 1 are gate and up of the same 16 hidden units.
template <int kPanels>
void multiply_gated_panels(const Product& product, const RowRange& range, int panel, const GatedUnits& units) {
  HWY_ALIGN Accumulators<kPanels> acc;
  const int block = range.block<kPanels>();
  for (int row = range.begin; row < range.end; row += block) {
    const int rows = std::min(block, range.end - row);
    const ResultLines results{product.y + row * product.y_stride + panel / 2 * kPanel, product.y_stride, rows,
                              kPanels / 2};
    multiply_row_block<kPanels>(product, range.tiled, row - range.begin, row, rows, panel, acc, results);
    for (int i = 0; i < rows; ++i)
      for (int p = 0; p < kPanels; p += 2) {
        V16 gate = load16(acc[i][p]), up = load16(acc[i][p + 1]);
        if (product.plus) {
          const float* plus = product.plus + (panel + p) * kPanel;
          gate = add(gate, load16(plus));
          up = add(up, load16(plus + kPanel));
        }
        const V16 h = gate16(units.activation, units.shape, gate, up);
        const int column = (panel + p) / 2 * kPanel, columns = std::min(kPanel, units.width - column);
        float* y = product.y + (row + i) * product.y_stride + column;
        if (columns == kPanel)
          store16(h, y);
        else
          store_first(h, y, columns);
      }
  }
}

void multiply_gated_run(const Product& product, int first, int last, const GatedUnits& units, std::uint64_t call) {
  for_each_row_range({&product, 1}, call, [&](const RowRange& range) {
    int panel = first;
    if (product.count == 1 && long_panels(*product.w))
      for (; panel + kMostPanels <= last; panel += kMostPanels)
        multiply_gated_panels<kMostPanels>(product, range, panel, units);
    for (; panel < last; panel += 2) multiply_gated_panels<2>(product, range, panel, units);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(multiply_run);
HWY_EXPORT(multiply_gated_run);

// Calls body(product, first, last) in parallel until all panels of every product that has rows have been in some
// [first, last).
template <typename Body>
void for_each_run(ThreadPool& pool, std::span<const Product> products, int together, Body&& body) {
  const PanelRuns runs(products, together, pool.threads());
  pool.parallel_for(runs.count(), [&](std::size_t run) { runs.for_each_piece(run, body); });
}

// AMX's tiles of bf16 take subnormal numbers as zeros. While it lives, vectors do so, too, for the same bits.
struct FlushWherePairs {
  explicit FlushWherePairs(const Product& product) {
    if (product.w->format == WeightFormat::kBF16xBF16) flush.emplace();
  }
  std::optional<FlushSubnormals> flush;
};

// Tells the calls of these functions apart, for what threads keep of the rows of a product (RowCopy).
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

void multiply_gated(ThreadPool& pool, std::span<const Product> products, const GatedUnits& units) {
  for_each_run(pool, products, 2, [&units, call = next_call()](const Product& product, int first, int last) {
    const FlushWherePairs flush(product);
    HWY_DYNAMIC_DISPATCH(multiply_gated_run)(product, first, last, units, call);
  });
}

}  // namespace foe
#endif
