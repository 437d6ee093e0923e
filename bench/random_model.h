// A model folder with random weights, for measurements that need one; costs/random_weights.h needs none.
#pragma once

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/model_config.h"

namespace foe {

// The weights have the deviations that training starts with, but are uniform, which is quicker to draw. They are made
// as they are written: memory does not grow with the model. The tokenizer gets tokens "<id>" for ids that it does not
// have. Throws Error for a model that cannot be trained.
void write_random_model(const std::string& dir, const ModelConfig& config, DType type, std::uint64_t seed,
                        const std::string& tokenizer_dir);

}  // namespace foe
