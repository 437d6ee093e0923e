#include "train/parts.h"

#include <algorithm>
#include <utility>

namespace foe::train {
namespace {

constexpr std::size_t kPieceFloats = std::size_t{1} << 15;
// Large enough that a message's latency does not count, small enough that the first is on its way soon.
constexpr std::size_t kBucketFloats = std::size_t{1} << 20;

}  // namespace

Parts::Parts(const Layout& layout, const Split& split) : moments_(split.ranks()) {
  std::vector<const TensorSlot*> tensors;
  for (const TensorSlot& tensor : layout.tensors) tensors.push_back(&tensor);
  std::stable_sort(tensors.begin(), tensors.end(), [](auto* a, auto* b) { return a->stage < b->stage; });
  int first = 0, stage = 0;
  std::size_t floats = 0;
  const auto end_bucket = [&] {
    if (first == static_cast<int>(pieces_.size())) return;
    add_bucket(stage, first, split);
    largest_ = std::max(largest_, floats);
    first = static_cast<int>(pieces_.size());
    floats = 0;
  };
  const auto add_piece = [&](const TensorSlot& tensor, int part, std::size_t at, std::size_t size) {
    if (tensor.stage != stage || floats + size > kBucketFloats) end_bucket();
    stage = tensor.stage;
    const bool ends = tensor.gradient == GradientOf::kEnds;
    const int place = tensor.gradient == GradientOf::kStream ? split.place_with(tensor.stream + part) : 0;
    pieces_.push_back({tensor.offset + at, size, tensor.decay, ends, tensor.everywhere, place, 0, tensor.offset + at});
    floats += size;
  };
  for (const TensorSlot* tensor : tensors) {
    const std::size_t part = tensor->size / tensor->parts;
    for (int p = 0; p < tensor->parts; ++p)
      for (std::size_t at = 0; at < part; at += kPieceFloats)
        add_piece(*tensor, p, p * part + at, std::min(kPieceFloats, part - at));
  }
  end_bucket();
  if (split.ranks() == 1) {
    moments_[0] = layout.size;
    return;
  }
  std::vector<std::size_t> next(split.ranks());
  for (std::vector<Piece>* pieces : {&pieces_, &by_owner_}) {
    std::fill(next.begin(), next.end(), 0);
    for (Piece& piece : *pieces) {
      piece.moment = next[piece.owner];
      next[piece.owner] += padded(piece.size);
    }
  }
  moments_ = next;
}

// Of the pieces whose gradients some ranks have, each gets those whose middles are in its part of them.
void Parts::add_bucket(int stage, int first, const Split& split) {
  const int last = static_cast<int>(pieces_.size()), places = split.group_ranks();
  for (int place = 0; place <= places; ++place) {  // the last stands for the ends, which all ranks have
    const auto here = [&](const Piece& piece) { return piece.ends ? place == places : piece.place == place; };
    std::size_t total = 0, before = 0;
    for (int i = first; i < last; ++i) total += here(pieces_[i]) ? pieces_[i].size : 0;
    const int owners = place == places ? split.ranks() : split.sets();
    for (int i = first; i < last; ++i) {
      Piece& piece = pieces_[i];
      if (!here(piece)) continue;
      const std::size_t middle = before + piece.size / 2;
      const int part = std::min(owners - 1, static_cast<int>(middle * static_cast<std::size_t>(owners) / total));
      piece.owner = place == places ? part : part * places + place;
      before += piece.size;
    }
  }
  by_owner_.insert(by_owner_.end(), pieces_.begin() + first, pieces_.end());
  std::stable_sort(by_owner_.begin() + first, by_owner_.end(), [](auto& a, auto& b) { return a.owner < b.owner; });
  Bucket bucket{stage, {first}};
  for (int r = 0; r < split.ranks(); ++r) {
    int end = bucket.begin.back();
    while (end < last && by_owner_[end].owner == r) ++end;
    bucket.begin.push_back(end);
  }
  buckets_.push_back(std::move(bucket));
}

}  // namespace foe::train
