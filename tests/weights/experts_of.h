// For tests that look at weights.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "weights/model_weights.h"

namespace foe {

// Returns a rank's experts of a layer, which stay in memory as long as the weights.
inline std::span<const ExpertWeights> experts_of(const Weights& weights, int layer) {
  const std::array<std::int32_t, 1> no_experts = {0};
  const ExpertWave wave = weights.experts->acquire(layer, no_experts);
  weights.experts->release(layer);
  return wave.weights;
}

}  // namespace foe
