// Memory that all ranks of a node see, for terms of sums that are added where they stand.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"

namespace foe {

class TermMemory {
 public:
  // Collective over `comm`, whose ranks are on one node; `floats` of this rank's own. Null, on all ranks, where the
  // system does not let one of them see another's.
  static std::shared_ptr<TermMemory> make(Communicator& comm, std::size_t floats);

  // A rank's part; null if it is empty.
  float* of(int rank) const { return parts_[rank].data.get(); }
  // Where in this rank's own part `x` stands, if it does.
  std::optional<std::size_t> place(const float* x) const;
  // Whether a rank's part has so many floats from a place on.
  bool has(int rank, std::size_t place, std::size_t floats) const;

 private:
  struct Part {
    std::shared_ptr<float> data;  // stays as long as any rank may still look at it
    std::size_t floats = 0;
  };
  struct Offer;

  explicit TermMemory(int rank) : rank_(rank) {}
  bool map_others(const std::vector<Offer>& offers);

  int rank_;
  std::vector<Part> parts_;
};

}  // namespace foe
