// The ranks of a job as a placement arranges them: groups on one axis, members of a group on the other. A member runs
// the sequences of one owner, so sums go over the group axis, between the ranks with the same sequences; rows travel to
// experts over the member axis, between the ranks with the same group.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "comm/background.h"
#include "comm/communicator.h"
#include "placement/placement.h"

namespace foe {

class RankGrid {
 public:
  // Collective. `world` outlives this and counts all exchanges. With `overlap`, exchanges go on in the background.
  RankGrid(const Placement& placement, Communicator& world, bool overlap = false);

  Communicator& world() { return world_; }
  // The ranks with this rank's sequences, in the order of their terms of every sum. An idle rank is alone here.
  Communicator& groups() { return groups_ ? *groups_ : world_; }
  // The ranks with this rank's groups, in the order of the owners.
  Communicator& members() { return members_ ? *members_ : world_; }

  // Begins an exchange over either axis; without overlap it runs when it is finished. Exchanges run in the order in
  // which they were started, and the world may be used again when all of them are finished. `finish` says what was
  // sent, and in `seconds` how long this thread has waited.
  using Ticket = Background::Ticket;
  Ticket start(std::function<void()> exchange);
  CommCounter finish(Ticket ticket);

  // What was started in a scope and not finished, because of an Error, does not outlive it.
  class Scope {
   public:
    explicit Scope(RankGrid& grid) : grid_(grid) {}
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    RankGrid& grid_;
  };

 private:
  Communicator& world_;
  std::unique_ptr<Communicator> groups_, members_;   // null: the world
  std::map<Ticket, std::function<void()>> started_;  // without overlap
  Ticket next_ = 0;
  std::optional<Background> background_;
};

}  // namespace foe
