// AdamW (Loshchilov and Hutter 2019) over flat arrays in the layout of the parameters, with clipping by the global norm
// and a warm-up-stable-decay schedule. Sums are taken over fixed pieces in a fixed order, so the bits do not depend on
// the number of threads.
#pragma once

#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "train/config.h"
#include "train/layout.h"

namespace foe::train {

// Returns the learning rate of step `step`, counted from 0. It rises linearly over warmup_steps, stays constant, and
// falls linearly over the last decay_steps to final_learning_rate times its height.
double learning_rate(const TrainConfig& config, int step);

// Holds the moments. `config` must outlive this.
class AdamW {
 public:
  AdamW(const Layout& layout, const TrainConfig& config);

  // Adds the gradients of all shards into the first, in order, and returns the norm of the sum.
  double reduce(ThreadPool& pool, std::span<AlignedBuffer<float>> shards) const;

  // Updates the parameters from the first shard's gradients, whose norm is `norm`. `step` counts from 0. Sets the
  // gradients of all shards to zero.
  void update(ThreadPool& pool, int step, double norm, std::span<AlignedBuffer<float>> shards, float* params);

  AlignedBuffer<float> first, second;  // moments

 private:
  // A part of one tensor, small enough to share among threads.
  struct Piece {
    std::size_t offset, size;
    bool decay;
  };

  const TrainConfig& config_;
  std::vector<Piece> pieces_;
};

}  // namespace foe::train
