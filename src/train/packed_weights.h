// The weight matrices as panels, in both orientations that training multiplies with. They are packed once per step from
// the flat parameters; all threads read them.
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
  std::vector<Linear<T>> qkv;  // for each stream: the rows of q, k and v of its heads, one after the other
  std::vector<Linear<T>> o;    // for each stream: the columns of its heads
  Linear<T> router;
  std::vector<Linear<T>> gate_up, down;  // of each expert
};

template <typename T>
class PackedWeights {
 public:
  explicit PackedWeights(const Layout& layout);
  PackedWeights(const PackedWeights&) = delete;  // the panels point into buffer_
  PackedWeights& operator=(const PackedWeights&) = delete;

  // Packs the parameters, in parallel. To be called again whenever they have changed.
  void pack(ThreadPool& pool, const T* params);

  std::vector<LayerWeights<T>> layers;
  Linear<T> head;

 private:
  // The rows [row, row + rows) of a packed matrix are the matrix [rows, columns] at params + offset.
  struct Block {
    std::size_t offset;
    int rows, columns;
    std::size_t forward, backward;  // where the panels of the matrix begin in buffer_
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
