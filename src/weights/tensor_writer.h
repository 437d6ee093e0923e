// Writes .safetensors files, atomically (atomic_file.h) and streaming: no tensor is copied in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "weights/stored_type.h"

namespace foe {

// A tensor to be written. `write` is called once, and gives all bytes in order (row-major, little-endian), in pieces of
// any size, to the sink that it is called with.
struct TensorSource {
  using Sink = std::function<void(std::span<const std::byte>)>;

  std::string name;
  const StoredType* type = nullptr;
  std::vector<std::int64_t> shape;
  std::function<void(const Sink&)> write;
};

// From values that live until the file is written. DType::kBF16 rounds them to nearest even, piece by piece.
TensorSource float_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                          std::span<const float> values);
// From values that are made as they are written: `fill` writes those from element `first` on, piece after piece.
TensorSource generated_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                              std::function<void(std::size_t first, std::span<float> out)> fill);
// From bytes as they are, of a type of safetensors ("U64").
TensorSource byte_source(std::string name, std::string_view type, std::vector<std::int64_t> shape,
                         std::span<const std::byte> bytes);

// transformers refuses a file that does not say which framework's layout it has.
inline const std::map<std::string, std::string> kDefaultMetadata = {{"format", "pt"}};

// The same sources give the same bytes, in whatever order they come: tensors are written by falling size of their
// elements, which keeps each aligned to its own, then by name. Throws Error where the disk refuses.
void write_tensor_file(const std::string& path, std::vector<TensorSource> sources,
                       const std::map<std::string, std::string>& metadata = kDefaultMetadata);

}  // namespace foe
