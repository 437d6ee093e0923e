// Random weights of a given shape, for measurements without a model of that shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned.h"
#include "weights/model_weights.h"

namespace foe {

// Makes matrices of values, or of codes in quantised formats, with a standard deviation near 1. Each is copied from
// another place of one pool of random values, so that gigabytes take a second.
class RandomMatrices {
 public:
  RandomMatrices(WeightFormat format, std::uint64_t seed);

  PackedMatrix next(int rows, int depth);
  // Fills `out` with plain values. The format must not be quantised.
  void fill(std::span<std::byte> out);

 private:
  WeightFormat format_;
  AlignedBuffer<std::byte> pool_;
  std::size_t at_ = 0;
};

// Returns weights for one rank's share. Embedding, norms and router, which ranks must agree on, are the same on all
// ranks. All other values are noise of a size that keeps activations near 1; they differ between placements.
Weights random_weights(const ModelConfig& config, const Share& share, WeightFormat format, std::uint64_t seed);

}  // namespace foe
