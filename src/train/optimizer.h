// AdamW (Loshchilov and Hutter 2019) with clipping by the global norm and a warm-up-stable-decay schedule. Each rank
// updates its own pieces of the parameters (parts.h) and has their moments.
#pragma once

#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "train/config.h"
#include "train/parts.h"

namespace foe::train {

// Returns the learning rate of step `step`, counted from 0. It rises linearly over warmup_steps, stays constant, and
// falls linearly over the last decay_steps to final_learning_rate times its height.
double learning_rate(const TrainConfig& config, int step);

// Holds the moments. `config` and `pieces` must outlive this.
class AdamW {
 public:
  // `moments` is the length of the arrays that the pieces tell their places in.
  AdamW(std::span<const Piece> pieces, std::size_t moments, const TrainConfig& config);

  // Returns for each piece the sum of the squares of its gradient.
  std::vector<double> squares(ThreadPool& pool, const float* gradient) const;

  // Updates the pieces' parameters from their gradients. `norm` is that of all gradients, also of other ranks. `step`
  // counts from 0.
  void update(ThreadPool& pool, int step, double norm, const float* gradient, float* params);

  AlignedBuffer<float> first, second;  // moments

 private:
  const TrainConfig& config_;
  std::span<const Piece> pieces_;
};

}  // namespace foe::train
