#include "weights/tensor_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/error.h"
#include "kernels/products/gemm.h"

namespace foe {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

std::span<const std::byte> map_file(const std::string& path) {
  // Without O_NONBLOCK, opening a pipe would wait for a writer before the check below can refuse it.
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status {};
  if (file.fd < 0 || fstat(file.fd, &status) != 0)
    fail("{}: expected a readable file, got: {}", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("{}: expected a file, got something else (mode {:o})", path, status.st_mode);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return {};  // mmap refuses empty files
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) fail("{}: expected to map {} bytes, got: {}", path, size, std::strerror(errno));
  return {static_cast<const std::byte*>(data), size};
}

void unmap(std::span<const std::byte> file) {
  if (!file.empty()) munmap(const_cast<std::byte*>(file.data()), file.size());
}

}  // namespace

void TensorFile::drop_pages() const {
  if (!file_.empty()) madvise(const_cast<std::byte*>(file_.data()), file_.size(), MADV_DONTNEED);
}

TensorFile::TensorFile(const std::string& path) : path_(path), file_(map_file(path)) {
  try {
    if (is_gguf(file_)) {
      GgufHeader header = parse_gguf_header(file_, path);
      header_.tensors = std::move(header.tensors);
      gguf_ = std::move(header.metadata);
    } else if (path.ends_with(".gguf")) {
      fail("{}: expected a GGUF file, which begins with the letters GGUF, got one of {} bytes without them", path,
           file_.size());
    } else {
      header_ = parse_safetensors_header(file_, path);
    }
  } catch (...) {
    unmap(file_);
    throw;
  }
}

TensorFile::~TensorFile() {
  unmap(file_);
}

TensorFile::TensorFile(TensorFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, {})),
      header_(std::move(other.header_)),
      gguf_(std::move(other.gguf_)) {}

TensorFile& TensorFile::operator=(TensorFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(header_, other.header_);
  std::swap(gguf_, other.gguf_);
  return *this;
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto& tensors = header_.tensors;
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](const TensorInfo& info, std::string_view wanted) { return info.name < wanted; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& info) const {
  FOE_CHECK(info.begin <= info.end && info.end <= file_.size(), "{} [{}, {}) of {}", info.name, info.begin, info.end,
            file_.size());
  return file_.subspan(info.begin, info.end - info.begin);
}

Tensor TensorFile::tensor(const TensorInfo& info) const {
  if (!info.type->dtype)
    fail("{}: {}: expected weights of type {}, got {}", path_, info.name,
         gguf_ ? "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K or MXFP4" : "F32, BF16 or F16",
         info.type->name);
  return {*info.type->dtype, info.shape, bytes(info), info.name};
}

void read_floats(const Tensor& tensor, std::int64_t first, std::span<float> out) {
  const auto count = static_cast<std::int64_t>(out.size());
  FOE_CHECK(first >= 0 && count <= tensor.size() && first <= tensor.size() - count, "[{}, +{}) of {}", first, count,
            tensor.size());
  const DTypeInfo& block = info_of(tensor.dtype);
  const int skip = static_cast<int>(first % block.elements);
  const StoredMatrix part{
      tensor.dtype, tensor.bytes.data() + bytes_of(tensor.dtype, first), 0, 1, static_cast<int>(count), skip};
  part.read_row(0, out.data());
}

Tensor rows(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  FOE_CHECK(!tensor.shape.empty() && 0 <= begin && begin <= end && end <= tensor.shape[0], "[{}, {}) of {}", begin, end,
            to_string(tensor.shape));
  const std::size_t row = tensor.shape[0] == 0 ? 0 : tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
  Tensor part = tensor;
  part.shape[0] = end - begin;
  part.bytes = tensor.bytes.subspan(static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end - begin) * row);
  return part;
}

Tensor slice(const Tensor& tensor, std::int64_t index) {
  Tensor part = rows(tensor, index, index + 1);
  part.shape.erase(part.shape.begin());
  return part;
}

}  // namespace foe
