// The ranks of a job as a placement arranges them: groups on one axis, members of a group on the other. A member runs
// the sequences of one owner, so sums go over the group axis, between the ranks with the same sequences; rows travel to
// experts over the member axis, between the ranks with the same group.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "placement/placement.h"

namespace foe {

class RankGrid {
 public:
  // Collective. `world` outlives this and counts all exchanges.
  RankGrid(const Placement& placement, Communicator& world);

  Communicator& world() { return world_; }
  // The ranks with this rank's sequences, in the order of their terms of every sum. An idle rank is alone here.
  Communicator& groups() { return groups_ ? *groups_ : world_; }
  // The ranks with this rank's groups, in the order of the owners.
  Communicator& members() { return members_ ? *members_ : world_; }

 private:
  Communicator& world_;
  std::unique_ptr<Communicator> groups_, members_;  // null: the world
};

}  // namespace foe
