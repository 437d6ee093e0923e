#include "weights/identity.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "base/digest.h"

namespace foe {
namespace {

constexpr std::size_t kWhole = std::size_t{256} << 10, kStride = std::size_t{1} << 20, kPage = 4096;

void add_bytes(Digest& digest, std::span<const std::byte> bytes) {
  if (bytes.size() <= kWhole) return digest.add(bytes);
  for (std::size_t at = 0; at < bytes.size(); at += kStride)
    digest.add(bytes.subspan(at, std::min(kPage, bytes.size() - at)));
  digest.add(bytes.last(kPage));
}

}  // namespace

std::uint64_t tensors_digest(ThreadPool& pool, const TensorFolder& folder) {
  struct Named {
    const TensorFile* file;
    const TensorInfo* info;
  };
  std::vector<Named> tensors;
  for (const TensorFile& file : folder.files())
    for (const TensorInfo& info : file.tensors()) tensors.push_back({&file, &info});
  // Sorted by name, so that the digest does not depend on how the tensors are spread over files.
  std::ranges::sort(tensors, {}, [](const Named& tensor) { return tensor.info->name; });
  std::vector<std::uint64_t> values(tensors.size());
  pool.parallel_for(tensors.size(), [&](std::size_t i) {
    const TensorInfo& info = *tensors[i].info;
    Digest digest;
    digest.add(info.name + " " + std::string(info.type->name) + " " + to_string(info.shape));
    add_bytes(digest, tensors[i].file->bytes(info));
    values[i] = digest.value();
  });
  Digest all;
  all.add(std::as_bytes(std::span<const std::uint64_t>(values)));
  return all.value();
}

std::string model_identity(ThreadPool& pool, const TensorFolder& folder) {
  return fmt::format("{:016x}", tensors_digest(pool, folder));
}

}  // namespace foe
