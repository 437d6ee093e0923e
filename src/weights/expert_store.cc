#include "weights/expert_store.h"

#include <unistd.h>

#include <sys/mman.h>

#include "base/check.h"

namespace foe {
namespace {

// Asks the system to read the pages of a matrix in a mapped file.
void read_ahead(const PackedMatrix& w) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(w.data) / page * page;
  const auto end =
      reinterpret_cast<std::uintptr_t>(w.data) + (w.panels() - 1) * w.panel_stride + panel_bytes(w.format, w.depth);
  if (w.bytes() > 0) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

}  // namespace

ExpertWave ExpertStore::acquire(int layer, std::span<const std::int32_t> rows_begin, int first) {
  FOE_CHECK(held_ < 0, "layer {} is acquired while layer {} is held", layer, held_);
  const ExpertWave wave = fetch(layer, rows_begin, first);
  held_ = layer;
  return wave;
}

void ExpertStore::release(int layer) {
  FOE_CHECK(held_ == layer, "layer {} is released, and layer {} held", layer, held_);
  give_back(layer);
  held_ = -1;
}

ExpertWave ResidentExperts::fetch(int layer, std::span<const std::int32_t> rows_begin, int first) {
  return {{first, static_cast<int>(rows_begin.size()) - 1}, layers_[layer]};
}

std::size_t ResidentExperts::bytes() const {
  std::size_t sum = 0;
  for (const std::vector<ExpertWeights>& layer : layers_)
    for (const ExpertWeights& e : layer) sum += e.gate_up.bytes() + e.down.bytes();
  return sum;
}

void MappedExperts::expect(int layer, std::span<const int> experts) {
  for (const int e : experts) {
    read_ahead(expert(layer, e).gate_up);
    read_ahead(expert(layer, e).down);
  }
}

}  // namespace foe
