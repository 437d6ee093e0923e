// Weights of a shape with random values, for measurements where no checkpoint of that shape is at hand.
#pragma once

#include "weights/model_weights.h"

namespace foe {

// A matrix of values, or of codes, with a deviation near 1.
PackedMatrix random_matrix(int rows, int depth, WeightFormat format, std::uint64_t seed);

// Embedding, norms and router, which ranks must agree on, are the same on all of them; other values are noise of the
// size that keeps activations near 1, and need not be those of another placement.
Weights random_weights(const ModelConfig& config, const Share& share, WeightFormat format, std::uint64_t seed);

}  // namespace foe
