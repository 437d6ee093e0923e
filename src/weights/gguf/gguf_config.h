// The configuration of a model in a GGUF file: its keys are translated into those of a config.json
// (architectures.h has the tables), which is then read as any other.
#pragma once

#include <string>
#include <string_view>

#include "core/model_config.h"
#include "weights/tensor_folder.h"

namespace foe {

// Returns a config.json, as text, with what the file's keys say, and what follows from which tensors it has. Throws
// Error naming the file, the key, what was expected and what was found; also for a key of the architecture that is not
// known, since it may change the answers.
std::string gguf_config_json(const TensorFolder& gguf);

// Changes a configuration that was read from that text where weights are stored otherwise than in Hugging Face's
// folders.
void adapt_to_gguf(const TensorFolder& gguf, ModelConfig& config);

// Whether a tensor of the file is a part of the configuration, or of layers that predict further tokens, which are not
// computed.
bool is_beside_gguf_model(const TensorFolder& gguf, std::string_view tensor);

// Returns the configuration of the model at `path`. Throws Error as these two and parse_model_config() do.
ModelConfig load_gguf_config(const std::string& path);

}  // namespace foe
