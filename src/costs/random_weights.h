// Weights of a shape with random values, for measurements where no checkpoint of that shape is at hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned.h"
#include "weights/model_weights.h"

namespace foe {

// Matrices of values, or of codes, with a deviation near 1: copies of one pool of random ones, each from another place,
// so that gigabytes take a second.
class RandomMatrices {
 public:
  RandomMatrices(WeightFormat format, std::uint64_t seed);

  PackedMatrix next(int rows, int depth);
  // The same as plain values; not of a quantised format.
  void fill(std::span<std::byte> out);

 private:
  WeightFormat format_;
  AlignedBuffer<std::byte> pool_;
  std::size_t at_ = 0;
};

// Embedding, norms and router, which ranks must agree on, are the same on all of them; other values are noise of the
// size that keeps activations near 1, and need not be those of another placement.
Weights random_weights(const ModelConfig& config, const Share& share, WeightFormat format, std::uint64_t seed);

}  // namespace foe
