// Writes .safetensors files, atomically (atomic_file.h) and without copying a tensor in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "weights/stored_type.h"
#include "weights/tensor_file.h"

namespace foe {

// A tensor to be written. `write` is called once. It passes all bytes in order (row-major, little-endian), in pieces of
// any size, to the sink that it is called with.
struct TensorSource {
  using Sink = std::function<void(std::span<const std::byte>)>;

  std::string name;
  const StoredType* type = nullptr;
  std::vector<std::int64_t> shape;
  std::function<void(const Sink&)> write;
};

// Makes a source from values, which must live until the file is written. For DType::kBF16 they are rounded to nearest,
// ties to even, piece by piece.
TensorSource float_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                          std::span<const float> values);
// Makes a source from values that are generated while they are written: `fill` is called for one piece after the other,
// and writes the values from element `first` on.
TensorSource generated_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                              std::function<void(std::size_t first, std::span<float> out)> fill);
// Makes a source from weights, whose file must stay open until they are written: in their own type if it is f32 or
// bf16, and otherwise in `otherwise`.
TensorSource weight_source(std::string name, const Tensor& tensor, DType otherwise = DType::kF32);
// Makes a source from bytes, which must live until the file is written, of a type of safetensors such as "U64".
TensorSource byte_source(std::string name, std::string_view type, std::vector<std::int64_t> shape,
                         std::span<const std::byte> bytes);

// transformers refuses a file that does not name the framework whose layout it has.
inline const std::map<std::string, std::string> kDefaultMetadata = {{"format", "pt"}};

// Writes the file. Tensors are ordered by descending size of their elements, which keeps each aligned to it, and then
// by name, so the order of `sources` does not matter. Throws Error if the disk refuses.
void write_tensor_file(const std::string& path, std::vector<TensorSource> sources,
                       const std::map<std::string, std::string>& metadata = kDefaultMetadata);

}  // namespace foe
