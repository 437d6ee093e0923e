// The weight matrices as panels, in both orientations that training multiplies with. Packed once per step from the flat
// parameters and shared, read-only, by all workers.
#pragma once

#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/products/sgemm.h"
#include "train/layout.h"

namespace foe::train {

// A linear layer W [N, K].
template <typename T>
struct Linear {
  Panels<T> forward;   // W^T [K, N], for y = x W^T
  Panels<T> backward;  // W [N, K], for dx = dy W
};

template <typename T>
struct LayerWeights {
  std::vector<Linear<T>> qkv;  // of each stream: its heads' rows of q, k and v, one below the other
  Linear<T> o, router;
  std::vector<Linear<T>> gate_up, down;  // of each expert
};

template <typename T>
class PackedWeights {
 public:
  explicit PackedWeights(const Layout& layout);
  PackedWeights(const PackedWeights&) = delete;  // the panels point into buffer_
  PackedWeights& operator=(const PackedWeights&) = delete;

  // Packs the parameters, in parallel. Call again whenever they have changed.
  void pack(ThreadPool& pool, const T* params);

  std::vector<LayerWeights<T>> layers;
  Linear<T> head;

 private:
  // Rows [row, row + rows) of a packed matrix come from params + offset: [rows, columns].
  struct Block {
    std::size_t offset;
    int rows, columns;
    std::size_t forward, backward;  // the matrix's panels in buffer_
    int row, total_rows;
  };
  struct Source {
    std::size_t offset;
    int rows;
  };

  std::vector<Block> blocks_;
  std::size_t reserved_ = 0;
  AlignedBuffer<T> buffer_;
};

}  // namespace foe::train
