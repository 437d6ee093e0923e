// What a user may give as a model, and where it is.
#pragma once

#include <string>

namespace foe {

// Returns the model folder, or the GGUF file, that `given` means:
//
//   a folder with config.json, or a GGUF file (one of its shards)   itself
//   a folder with one GGUF model and no config.json                 that file
//   config.json, or a .safetensors beside it                        their folder
//   Hugging Face's cache of a model (models--ORG--NAME)             its snapshot, the one of refs/main
//   ORG/NAME, where there is no such folder                         the same, in the cache
//
// What does not exist otherwise is returned as it is. Throws Error, saying what was found and what to do, for what is
// known not to be a model that can be loaded: adapters (LoRA), files that git-lfs has not fetched, PyTorch's files,
// models of images, several GGUF models in a folder, and a name that is not in the cache.
std::string find_model(const std::string& given);

}  // namespace foe
