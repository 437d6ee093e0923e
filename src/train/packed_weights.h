// The weight matrices as panels, in both orientations that training multiplies with. They are packed once per step from
// the flat parameters; all threads read them.
#pragma once

#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "train/layout.h"
#include "train/products.h"

namespace foe::train {

// A linear layer W [N, K].
template <typename T>
struct Linear {
  Operand<T> forward;   // W^T [K, N], for y = x W^T
  Operand<T> backward;  // W [N, K], for dx = dy W
};

template <typename T>
struct LayerWeights {
  std::vector<Linear<T>> qkv;          // for each stream here: the rows of q, k and v of its heads, one after the other
  std::vector<Operand<T>> o_forward;   // for each block of the sum over heads (core/sum_blocks.h): its columns
  std::vector<Operand<T>> o_backward;  // for each stream: the columns of its heads
  Linear<T> router;
  std::vector<Linear<T>> gate_up, down;  // of each expert; empty where it is another rank's
};

template <typename T>
class PackedWeights {
 public:
  // With kBF16 all weights but the router's are rounded to bf16, as products with them are to round their other
  // operand, too. Only f32 weights can be rounded.
  explicit PackedWeights(const Layout& layout, DType product_precision = DType::kF32)
      : PackedWeights(layout, product_precision, layout.dims) {}
  // Those of the streams in `own`.
  PackedWeights(const Layout& layout, DType product_precision, const Dims& own);
  PackedWeights(const PackedWeights&) = delete;  // the panels point into the buffers
  PackedWeights& operator=(const PackedWeights&) = delete;

  // Packs the parameters, in parallel. To be called again whenever they have changed.
  void pack(ThreadPool& pool, const T* params);

  const DType precision;
  std::vector<LayerWeights<T>> layers;
  Linear<T> head;

 private:
  // Consecutive rows of a matrix, at params + offset.
  struct Source {
    std::size_t offset;
    int rows;
  };
  // An operand: the columns [column, column + columns) of the rows of all sources, which are `stride` apart, or the
  // transposed of that.
  struct Packing {
    std::vector<Source> sources;
    int stride, column, columns;
    bool transposed, rounded;
    std::size_t at;  // where it begins in the buffer
    Operand<T>* operand;
  };

  void reserve(Operand<T>& operand, Packing packing);
  void reserve(Linear<T>& linear, const std::vector<Source>& sources, int columns, bool rounded);
  void pack(const Packing& packing, const T* params);

  std::vector<Packing> packings_;
  std::size_t reserved_ = 0, reserved_pairs_ = 0;
  AlignedBuffer<T> buffer_;
  AlignedBuffer<BF16> pairs_;
};

}  // namespace foe::train
