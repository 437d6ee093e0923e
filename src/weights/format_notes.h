// What a user should know of the formats that weights have in memory.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "weights/stored_tensors.h"
#include "weights/weight_formats.h"

namespace foe {

// Returns a sentence on the weights of a GGUF file that keep their format, and one on those that are rounded in the
// file already and once more in memory.
std::vector<std::string> format_notes(const StoredTensors& stored, const ModelConfig& config,
                                      const WeightFormats& formats);

}  // namespace foe
