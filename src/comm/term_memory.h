// Memory that all ranks of a node see, for terms of sums that are added in place.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"

namespace foe {

class TermMemory {
 public:
  // Collective over `comm`, whose ranks are on one node. Allocates `floats` floats for this rank and maps the other
  // ranks' parts. Returns null on all ranks if the system does not let one of them see another's memory.
  static std::shared_ptr<TermMemory> make(Communicator& comm, std::size_t floats);

  // Returns a rank's part, or null if it is empty.
  float* of(int rank) const { return parts_[rank].data.get(); }
  // Returns the offset of `x` in this rank's own part, or nothing if `x` is not in it.
  std::optional<std::size_t> place(const float* x) const;
  // Whether a rank's part has at least `floats` floats from `place` on.
  bool has(int rank, std::size_t place, std::size_t floats) const;

 private:
  struct Part {
    std::shared_ptr<float> data;  // mapped until no rank of this process uses it
    std::size_t floats = 0;
  };
  struct Offer;

  explicit TermMemory(int rank) : rank_(rank) {}
  bool map_others(const std::vector<Offer>& offers);

  int rank_;
  std::vector<Part> parts_;
};

}  // namespace foe
