// For tests that look at weights.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/change_config.h"
#include "core/configs.h"
#include "weights/model_weights.h"

namespace foe {

// A small model whose matrices have depths of whole blocks of integers.
inline ModelConfig whole_block_config(int layers) {
  ModelConfig c = small_config();
  c.hidden_size = 128;
  set(c, &AttentionConfig::key_width, 16);
  set(c, &ExpertsConfig::width, 128);
  set_layers(c, layers);
  return c;
}

// Returns a rank's experts of a layer, which stay in memory as long as the weights.
inline std::span<const ExpertWeights> experts_of(const Weights& weights, int layer) {
  const std::array<std::int32_t, 1> no_experts = {0};
  const ExpertWave wave = weights.experts->acquire(layer, no_experts);
  weights.experts->release(layer);
  return wave.weights;
}

}  // namespace foe
