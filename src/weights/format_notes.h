// What a user should know of the formats that weights have in memory.
#pragma once

#include <string>
#include <vector>

#include "weights/tensor_folder.h"
#include "weights/weight_formats.h"

namespace foe {

// Returns a sentence for each format to which weights of a GGUF file are rounded that are rounded in the file already.
std::vector<std::string> format_notes(const TensorFolder& folder, const WeightFormats& formats);

}  // namespace foe
