#include "train/parts.h"

#include <algorithm>
#include <numeric>

namespace foe::train {
namespace {

constexpr std::size_t kPieceFloats = std::size_t{1} << 15;
// Large enough that a message's latency does not count, small enough that the first is on its way soon.
constexpr std::size_t kBucketFloats = std::size_t{1} << 20;

std::size_t padded(std::size_t size) {
  return (size + 15) / 16 * 16;
}

}  // namespace

Parts::Parts(const Layout& layout, int ranks) : moments_(ranks) {
  std::vector<const TensorSlot*> tensors;
  for (const TensorSlot& tensor : layout.tensors) tensors.push_back(&tensor);
  std::stable_sort(tensors.begin(), tensors.end(), [](auto* a, auto* b) { return a->stage < b->stage; });
  int first = 0, stage = 0;
  std::size_t floats = 0;
  const auto end_bucket = [&] {
    if (const int last = static_cast<int>(pieces_.size()); last > first) {
      add_bucket(first, last, ranks);
      buckets_.back().stage = stage;
      largest_ = std::max(largest_, floats);
      first = last;
    }
    floats = 0;
  };
  const auto add_piece = [&](const TensorSlot& tensor, std::size_t at, std::size_t size) {
    if (tensor.stage != stage || floats + size > kBucketFloats) end_bucket();
    stage = tensor.stage;
    pieces_.push_back({tensor.offset + at, size, tensor.decay, 0, tensor.offset + at});
    floats += size;
  };
  for (const TensorSlot* tensor : tensors) {
    const std::size_t part = tensor->size / tensor->parts;
    for (std::size_t begin = 0; begin < tensor->size; begin += part)
      for (std::size_t at = 0; at < part; at += kPieceFloats)
        add_piece(*tensor, begin + at, std::min(kPieceFloats, part - at));
  }
  end_bucket();
  if (ranks == 1) {
    moments_[0] = layout.size;
    return;
  }
  for (Piece& piece : pieces_) {
    piece.moment = moments_[piece.owner];
    moments_[piece.owner] += padded(piece.size);
  }
}

// Each rank gets the pieces whose middles are in its part of the bucket.
void Parts::add_bucket(int first, int last, int ranks) {
  Bucket bucket{0, std::vector<int>(ranks + 1, last)};
  bucket.begin[0] = first;
  const auto sizes = [](std::size_t sum, const Piece& piece) { return sum + piece.size; };
  const std::size_t total = std::accumulate(pieces_.begin() + first, pieces_.begin() + last, std::size_t{0}, sizes);
  std::size_t before = 0;
  int rank = 0;
  for (int i = first; i < last; ++i) {
    const std::size_t middle = before + pieces_[i].size / 2;
    const int owner = std::min(ranks - 1, static_cast<int>(middle * static_cast<std::size_t>(ranks) / total));
    while (rank < owner) bucket.begin[++rank] = i;
    pieces_[i].owner = rank;
    before += pieces_[i].size;
  }
  buckets_.push_back(std::move(bucket));
}

std::size_t Parts::floats(const Bucket& bucket, int rank) const {
  std::size_t sum = 0;
  for (const Piece& piece : pieces_of(bucket, rank)) sum += piece.size;
  return sum;
}

}  // namespace foe::train
