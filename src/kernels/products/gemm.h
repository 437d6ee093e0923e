// Products of activations with packed weights.
//
// Weights are packed in panels of 16 output rows (weight_format.h), so that one vector holds the same k of 16 outputs.
// A panel is read once, from its first byte to its last, however many activation rows there are. Every output is one
// chain of fused multiply-adds over ascending k or, with quantised weights, over ascending blocks of k. So the result
// of a row has the same bits whichever rows it is computed with: a product with one row (GEMV, in decode) and one with
// many (GEMM, in prefill) agree.
//
// A function here is called by the thread that owns the pool, and returns when all of its outputs are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "core/activation.h"
#include "core/dtype.h"
#include "core/sum_tree.h"
#include "kernels/formats/feedback.h"
#include "kernels/formats/quantise.h"
#include "kernels/formats/weight_format.h"

namespace foe {

// A weight matrix W [rows, depth], stored as ceil(rows / 16) panels. The rows that fill up the last panel are zero. The
// matrix owns its weights, or is a view: then they belong to a file, to a PackingSpace or to another matrix, which must
// outlive it.
struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  int rows = 0;
  int depth = 0;
  const std::byte* data = nullptr;  // any alignment
  std::size_t panel_stride = 0;     // bytes from one panel to the next
  AlignedBuffer<std::byte> own;     // what `data` points to; empty in a view

  int panels() const { return (rows + kPanel - 1) / kPanel; }
  std::size_t bytes() const { return panels() * panel_bytes(format, depth); }
  // A view of some rows and columns. `row` must be a multiple of 16, and `column` one of the format's block_depth().
  PackedMatrix view(int row, int row_count, int column, int column_count) const;
};

// Owns the memory of many packed matrices, and must outlive them. Most matrices are smaller than a huge page, so they
// get huge pages only if they lie together.
class PackingSpace {
 public:
  std::byte* take(std::size_t bytes);  // returns memory that is zero and begins at a cache line

 private:
  std::vector<AlignedBuffer<std::byte>> pieces_;
  std::size_t used_ = 0;  // bytes of the last piece
};

// A view of a matrix as it stands in a file, of any type: row-major, at any alignment, and possibly a slice of a wider
// matrix. A slice may begin and end inside blocks of the type.
struct StoredMatrix {
  DType type = DType::kF32;
  const std::byte* data = nullptr;  // element (0, 0), or the block that it is in
  std::size_t row_bytes = 0;        // from one row to the next
  int rows = 0;
  int depth = 0;
  int skip = 0;  // so many elements of each row's first block come before the slice

  StoredMatrix slice(int row, int row_count, int column, int column_count) const;
  // Writes one row to out[0 .. depth), as f32: widened, which is exact, or decoded (decode() in stored_blocks.h).
  void read_row(int row, float* out) const;
};

// Returns the format that has exactly the numbers of a matrix of a type in blocks: q8_0, q4_1 (also of q4_0), q4_k or
// q6_k. None if the matrix is of another type, or is a slice that begins or ends inside a block of 32 or a half block
// of q4_k or q6_k.
std::optional<WeightFormat> keeps_parts(const StoredMatrix& matrix);

// Returns a matrix of zeros that owns its memory.
PackedMatrix empty_packed(int rows, int depth, WeightFormat format);

// Packs `parts`, which must all have the same depth, as one matrix: the rows of each part follow those of the one
// before it. The weights are converted to `format`, those in blocks from the f32 that they decode to: f32 becomes the
// nearest bf16, ties to even, and quantise_block() says how int8 and int4 round. Formats in parts take only
// matrices for which keeps_parts() returns them, and throw Error for a scale of q4_0 of 8192 or more. With `space`, the
// matrix lies there; without it, the matrix owns its memory. `errors` says how those of the columns count in int4.
PackedMatrix pack(ThreadPool& pool, std::span<const StoredMatrix> parts, WeightFormat format,
                  PackingSpace* space = nullptr, const ColumnErrors& errors = {});

// Packs gate and up, [F, D] each, as one matrix whose panels alternate (gate 0, up 0, gate 1, ...), as multiply_gated
// requires. The matrix has 2 * 16 * ceil(F / 16) rows.
PackedMatrix pack_gate_up(ThreadPool& pool, const StoredMatrix& gate, const StoredMatrix& up, WeightFormat format,
                          PackingSpace* space = nullptr, const ColumnErrors& errors = {});

// The biases of gate and up, [F] each, in the order of the rows of that matrix, with zeros where these are.
std::vector<float> pack_gate_up_bias(std::span<const float> gate, std::span<const float> up);

// One product: y[i, n] = sum_k x[row(i), k] w[n, k] for i < count, where row(i) is rows[i], or i if `rows` is null. If
// `plus` is not null, plus[i, n] is added. The caller owns all of the memory.
struct Product {
  const float* x = nullptr;
  std::size_t x_stride = 0;            // floats from row to row
  const std::int32_t* rows = nullptr;  // which rows of x are multiplied; null: the first `count`
  int count = 0;
  const PackedMatrix* w = nullptr;
  float* y = nullptr;
  std::size_t y_stride = 0;  // floats from row to row
  const float* plus = nullptr;
  QuantisedRows quantised = {};  // all rows of x rounded by quantise_rows(); required where rounds_rows(w->format)
  std::size_t plus_stride = 0;   // floats from row to row of `plus`; 0: a bias, one row for all
};

// Computes all products in one parallel loop, whatever their sizes: one call multiplies all experts, or the attention
// projections of all groups (a grouped GEMM). The outputs must not overlap.
void multiply(ThreadPool& pool, std::span<const Product> products);

// Writes the sum of the products to the y of the first; the others must have none. All products have the same count and
// as many outputs, there is at least one, and `merges`, from sum_tree_merges(), says in which order they are added:
// there is one merge less than there are products.
void multiply_and_sum(ThreadPool& pool, std::span<const Product> products, std::span<const Merge> merges);

// The hidden units of a feed-forward network.
struct GatedUnits {
  int width;
  Activation activation = Activation::kSilu;
  GateShape shape = {};
};

// Like multiply(), with a w that pack_gate_up() made: y[i, f] = act(gate[i, f]) * up[i, f] for f < width, with what
// `shape` says besides, where gate and up are the products with the two matrices. `plus` is one row of biases in the
// order of the rows of w, pack_gate_up_bias().
void multiply_gated(ThreadPool& pool, std::span<const Product> products, const GatedUnits& units);

}  // namespace foe
