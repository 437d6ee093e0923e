// The files of a GGUF model: one, or shards whose names end with "-00001-of-0000N.gguf".
#pragma once

#include <span>
#include <string>
#include <vector>

#include "weights/tensor_file.h"

namespace foe {

// Whether the path of a model is that of a GGUF file, and not of a folder: it ends with ".gguf", or the file begins as
// GGUF files do.
bool is_gguf_path(const std::string& path);

// Returns the paths of all shards in their order, whichever of them `path` is; `path` alone if its name is none of a
// shard's. Throws Error for numbers that no shards have.
std::vector<std::string> gguf_shards(const std::string& path);

// Throws Error unless the opened files say that they are these shards, and have so many tensors together.
void check_gguf_shards(std::span<const TensorFile> files, std::size_t tensors);

}  // namespace foe
