// Products of activations with packed weights.
//
// Weights are packed in panels of 16 output rows, k-major inside a panel, so that vectors run over outputs: one panel
// is streamed once, contiguously, whatever the number of activation rows, and every output is one chain of fused
// multiply-adds over ascending k, or over ascending blocks of it (weight_format.h). So a row's result does not depend
// on which rows it is computed with (GEMV = GEMM).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "core/dtype.h"
#include "core/sum_tree.h"
#include "kernels/formats/quantise.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// W [rows, depth], stored as ceil(rows/16) panels of [depth][16], or of blocks; rows past the end are zero. The weights
// are its own or, where it is a view, those of a file or of another matrix.
struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  int rows = 0;
  int depth = 0;
  const std::byte* data = nullptr;  // any alignment
  std::size_t panel_stride = 0;     // bytes from one panel to the next
  AlignedBuffer<std::byte> own;     // empty in a view or a PackingSpace

  int panels() const { return (rows + kPanel - 1) / kPanel; }
  std::size_t bytes() const { return panels() * panel_bytes(format, depth); }
  // Rows from a multiple of 16 on, columns from a multiple of the format's block on.
  PackedMatrix view(int row, int row_count, int column, int column_count) const;
};

// Memory of many packed matrices, which it outlives: most are smaller than a huge page, so that only together they get
// such pages.
class PackingSpace {
 public:
  std::byte* take(std::size_t bytes);  // zeros, at a cache line

 private:
  std::vector<AlignedBuffer<std::byte>> pieces_;
  std::size_t used_ = 0;  // of the last
};

// A matrix of f32 or bf16 as it stands in a file: row-major, perhaps unaligned, perhaps a slice of a wider one.
struct StoredMatrix {
  DType type = DType::kF32;
  const std::byte* data = nullptr;  // element (0, 0)
  std::size_t row_bytes = 0;        // from one row to the next
  int rows = 0;
  int depth = 0;

  StoredMatrix slice(int row, int row_count, int column, int column_count) const;
  // out[0 .. depth) = one row, widened exactly.
  void read_row(int row, float* out) const;
};

// All zero.
PackedMatrix empty_packed(int rows, int depth, WeightFormat format);

// Packs the matrices one below the other (all of one depth), converting to `format`. f32 to bf16 rounds to nearest
// even; quantise_block() says how the others round.
PackedMatrix pack(ThreadPool& pool, std::span<const StoredMatrix> parts, WeightFormat format,
                  PackingSpace* space = nullptr);

// Packs gate and up [F, D] with their panels alternating (gate 0, up 0, gate 1, ...), as multiply_swiglu wants them;
// rows = 2 * 16 * ceil(F/16).
PackedMatrix pack_gate_up(ThreadPool& pool, const StoredMatrix& gate, const StoredMatrix& up, WeightFormat format,
                          PackingSpace* space = nullptr);

// One product y[i, n] = sum_k x[row(i), k] w[n, k] (+ plus[i, n]) for i < count; row(i) = rows[i], or i without `rows`.
struct Product {
  const float* x = nullptr;
  std::size_t x_stride = 0;            // floats from row to row
  const std::int32_t* rows = nullptr;  // gathered rows of x, or null
  int count = 0;
  const PackedMatrix* w = nullptr;
  float* y = nullptr;
  std::size_t y_stride = 0;      // of `plus`, too
  const float* plus = nullptr;   // added to the product, or null
  QuantisedRows quantised = {};  // x as quantised weights take it: row(i) is x's there, too
};

// Runs all products in one parallel pass, whatever their sizes: the grouped GEMM of the experts, of the groups'
// attention projections, or a plain GEMM where there is one product. Outputs must not overlap.
void multiply(ThreadPool& pool, std::span<const Product> products);

// The sum of products of one shape, in the order of `merges` (sum_tree_merges of the products), to the y of the first;
// the others have none. At least one product, and one merge less.
void multiply_and_sum(ThreadPool& pool, std::span<const Product> products, std::span<const Merge> merges);

// multiply with w packed by pack_gate_up, without `plus`: y[i, f] = silu(gate[i, f]) * up[i, f] for f < width.
void multiply_swiglu(ThreadPool& pool, std::span<const Product> products, int width);

}  // namespace foe
