// Weights of a shape with random values, for measurements where no checkpoint of that shape is at hand.
#pragma once

#include "weights/model_weights.h"

namespace foe {

// Embedding, norms and router, which ranks must agree on, are the same on all of them; other values are noise of the
// size that keeps activations near 1, and need not be those of another placement.
Weights random_weights(const ModelConfig& config, const Share& share, DType type, std::uint64_t seed);

}  // namespace foe
