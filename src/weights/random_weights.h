// Weights of a shape with random values, for measurements where no checkpoint of that shape is at hand.
#pragma once

#include "weights/model_weights.h"

namespace foe {

// What every rank holds (embedding, norms, router) is the same on all of them; what is split differs. Values are of the
// size that keeps activations near 1.
Weights random_weights(const ModelConfig& config, const Share& share, DType type, std::uint64_t seed);

}  // namespace foe
