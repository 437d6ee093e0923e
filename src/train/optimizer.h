// AdamW (Loshchilov and Hutter 2019) over flat arrays in the parameters' layout, with clipping by the global norm and a
// warm-up-stable-decay schedule. Sums are taken over fixed pieces in a fixed order, so bits do not depend on threads.
#pragma once

#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "train/config.h"
#include "train/layout.h"

namespace foe::train {

// Of step `step`, counted from 0: rises linearly over warmup_steps, stays, and falls linearly over the last decay_steps
// to final_learning_rate times its height.
double learning_rate(const TrainConfig& config, int step);

class AdamW {
 public:
  AdamW(const Layout& layout, const TrainConfig& config);

  // Adds the shards' gradients into the first, in order, and returns the norm of the sum.
  double reduce(ThreadPool& pool, std::span<AlignedBuffer<float>> shards) const;

  // One step from `gradients`, whose norm is given; step counts from 0. Sets every shard's gradients to zero.
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
