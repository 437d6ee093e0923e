#include "weights/identity.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "base/digest.h"
#include "base/sha256.h"

namespace foe {
namespace {

constexpr std::size_t kPiece = std::size_t{16} << 20, kPiecesAtATime = 64;
constexpr std::size_t kWhole = std::size_t{256} << 10, kStride = std::size_t{1} << 20, kPage = 4096;

void add_bytes(Digest& digest, std::span<const std::byte> bytes) {
  if (bytes.size() <= kWhole) return digest.add(bytes);
  for (std::size_t at = 0; at < bytes.size(); at += kStride)
    digest.add(bytes.subspan(at, std::min(kPage, bytes.size() - at)));
  digest.add(bytes.last(kPage));
}

struct Named {
  const TensorFile* file;
  const TensorInfo* info;

  std::string head() const { return info->name + " " + std::string(info->type->name) + " " + to_string(info->shape); }
};

// Sorted by name, so that digests do not depend on how the tensors are spread over files.
std::vector<Named> tensors_by_name(const TensorFolder& folder) {
  std::vector<Named> tensors;
  for (const TensorFile& file : folder.files())
    for (const TensorInfo& info : file.tensors()) tensors.push_back({&file, &info});
  std::ranges::sort(tensors, {}, [](const Named& tensor) { return tensor.info->name; });
  return tensors;
}

}  // namespace

std::uint64_t tensors_digest(ThreadPool& pool, const TensorFolder& folder) {
  const std::vector<Named> tensors = tensors_by_name(folder);
  std::vector<std::uint64_t> values(tensors.size());
  pool.parallel_for(tensors.size(), [&](std::size_t i) {
    const TensorInfo& info = *tensors[i].info;
    Digest digest;
    digest.add(tensors[i].head());
    add_bytes(digest, tensors[i].file->bytes(info));
    values[i] = digest.value();
  });
  Digest all;
  all.add(std::as_bytes(std::span<const std::uint64_t>(values)));
  return all.value();
}

std::string weights_sha256(ThreadPool& pool, const TensorFolder& folder, const std::function<void()>& between) {
  const std::vector<Named> tensors = tensors_by_name(folder);
  std::vector<std::string> heads;
  for (const Named& tensor : tensors) heads.push_back(tensor.head());
  std::vector<std::span<const std::byte>> pieces;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    pieces.push_back(std::as_bytes(std::span(heads[i])));
    const std::span<const std::byte> bytes = tensors[i].file->bytes(*tensors[i].info);
    for (std::size_t at = 0; at < bytes.size(); at += kPiece)
      pieces.push_back(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
  }
  Sha256 all;
  std::vector<std::string> digests(kPiecesAtATime);
  for (std::size_t at = 0; at < pieces.size(); at += kPiecesAtATime) {
    const std::size_t count = std::min(kPiecesAtATime, pieces.size() - at);
    pool.parallel_for(count, [&](std::size_t i) { digests[i] = sha256(pieces[at + i]); });
    for (std::size_t i = 0; i < count; ++i) all.add(digests[i]);
    between();
  }
  return all.hex();
}

std::string model_identity(ThreadPool& pool, const TensorFolder& folder) {
  return fmt::format("{:016x}", tensors_digest(pool, folder));
}

}  // namespace foe
