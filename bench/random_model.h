// Writes a model folder with random weights, for measurements that need a folder. (bench/random_weights.h makes weights
// in memory.)
#pragma once

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/model_config.h"

namespace foe {

// The weights have the standard deviations that training starts with, but are uniform, which is faster to draw. They
// are made as they are written, so the memory does not grow with the model. The tokenizer gets tokens "<id>" for ids
// that it does not have. Throws Error for a model that cannot be trained.
void write_random_model(const std::string& dir, const ModelConfig& config, DType type, std::uint64_t seed,
                        const std::string& tokenizer_dir);

}  // namespace foe
