// Writes a model folder that we and transformers can load.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "weights/tensor_writer.h"

namespace foe {

// Makes the folder if it is not there, and writes config.json, generation_config.json, model.safetensors and those of
// the tokenizer's files that `tokenizer_dir` has.
void write_model_folder(const std::string& dir, const ModelConfig& config, std::vector<TensorSource> tensors,
                        const std::string& tokenizer_dir);

}  // namespace foe
