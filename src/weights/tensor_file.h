// One .safetensors file, mapped read-only. Opening it reads and checks the header; of the data, only those pages are
// read that somebody touches, so a rank that uses some of the experts reads only their byte ranges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "weights/safetensors_header.h"

namespace foe {

// A view of weights in a mapped file, valid as long as the file is. Row-major, little-endian, and *not aligned*: a
// safetensors file may put a tensor at any byte. Read it with memcpy, unaligned loads or read_floats().
struct Tensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::string name = {};  // in its file

  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size() / size_of(dtype)); }  // elements
};

// out[i] = element first + i of `tensor`, widened exactly. The range must lie within the tensor.
void read_floats(const Tensor& tensor, std::int64_t first, std::span<float> out);

// Part `index` of a tensor's first dimension: shape [E, F, D] gives [F, D].
Tensor slice(const Tensor& tensor, std::int64_t index);
// Rows [begin, end) of a tensor's first dimension.
Tensor rows(const Tensor& tensor, std::int64_t begin, std::int64_t end);

// Move-only. All const functions may run on any number of threads. The file must not be shortened while it is mapped
// (reading past its new end kills the process): write_tensor_file() replaces files by renaming, which is safe.
class TensorFile {
 public:
  // Throws Error naming the file, what was expected and what was found.
  explicit TensorFile(const std::string& path);
  ~TensorFile();
  TensorFile(TensorFile&& other) noexcept;
  TensorFile& operator=(TensorFile&& other) noexcept;

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }  // ordered by name
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  const TensorInfo* find(std::string_view name) const;  // nullptr where there is none
  // `info` must be of this file.
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  // Throws Error where the type cannot be used as weights.
  Tensor tensor(const TensorInfo& info) const;
  // Frees the memory behind what was read; where it is read again, it comes from the page cache or the disk.
  void drop_pages() const;

 private:
  std::string path_;
  std::span<const std::byte> file_;  // the mapping
  SafetensorsHeader header_;
};

}  // namespace foe
