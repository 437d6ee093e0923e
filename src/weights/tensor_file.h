// One .safetensors or .gguf file, mapped read-only. Opening it reads and checks the header. Data is read from disk only
// when it is used, page by page, so a rank that holds some of the experts reads only these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "weights/gguf/gguf_header.h"
#include "weights/safetensors_header.h"

namespace foe {

// A view of weights in a mapped file, valid as long as its TensorFile, or a copy of some in another order. Row-major,
// little-endian, and *not aligned*, as a safetensors file may put a tensor at any byte: read it with memcpy, unaligned
// loads or read_floats().
struct Tensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::string name = {};                                   // its name in the file
  std::shared_ptr<const std::vector<std::byte>> own = {};  // a copy's bytes

  std::int64_t size() const {  // elements
    return static_cast<std::int64_t>(bytes.size() / info_of(dtype).bytes) * info_of(dtype).elements;
  }
};

// Writes element first + i of `tensor` as f32 to out[i]. The range must lie within the tensor.
void read_floats(const Tensor& tensor, std::int64_t first, std::span<float> out);

// Returns part `index` of a tensor's first dimension: of [E, F, D] it returns [F, D].
Tensor slice(const Tensor& tensor, std::int64_t index);
// Returns the parts [begin, end) of a tensor's first dimension.
Tensor rows(const Tensor& tensor, std::int64_t begin, std::int64_t end);

// Move-only. Any number of threads may call const functions at once. The file must not be shortened while it is mapped,
// because reading past its new end kills the process. write_tensor_file() replaces files by renaming, which is safe.
class TensorFile {
 public:
  // Throws Error naming the file, what was expected and what was found.
  explicit TensorFile(const std::string& path);
  ~TensorFile();
  TensorFile(TensorFile&& other) noexcept;
  TensorFile& operator=(TensorFile&& other) noexcept;

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }               // ordered by name
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }  // of a .safetensors
  const GgufMetadata* gguf() const { return gguf_ ? &*gguf_ : nullptr; }  // null if it is a .safetensors
  std::span<const std::byte> bytes() const { return file_; }              // of the whole file

  const TensorInfo* find(std::string_view name) const;  // null if there is none
  // Returns the bytes of a tensor. `info` must be from this file.
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  // Returns a tensor. `info` must be from this file. Throws Error if its type cannot be used as weights.
  Tensor tensor(const TensorInfo& info) const;
  // Frees the memory of the pages that were read. If they are used again, they come from the page cache or the disk.
  void drop_pages() const;

 private:
  std::string path_;
  std::span<const std::byte> file_;  // the mapping
  SafetensorsHeader header_;
  std::optional<GgufMetadata> gguf_;  // views of the mapping
};

}  // namespace foe
