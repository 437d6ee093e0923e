// The ranks of a job as a grid with two axes. Along the group axis are ranks with the same sequences and different
// groups: sums go along it. Along the member axis are ranks with the same groups, each of which owns some sequences:
// rows travel to experts along it. In plan pp each stage has a grid of its own, and passes its rows on to the next one.
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
  // Collective. `world` must outlive this; its counters count all exchanges. With `overlap`, exchanges run in the
  // background.
  RankGrid(const Placement& placement, Communicator& world, bool overlap = false);

  Communicator& world() { return world_; }
  // The ranks with this rank's sequences, in the order of their terms of every sum. An idle rank is alone here.
  Communicator& across_groups() { return across_groups_ ? *across_groups_ : world_; }
  // The ranks with this rank's groups, in the order of the owners.
  Communicator& within_group() { return within_group_ ? *within_group_ : world_; }

  // All ranks, for messages between stages.
  Communicator& messages() { return messages_ ? *messages_ : world_; }

  // start() starts an exchange along either axis, and finish() waits until it has run. Without overlap it is finish()
  // that runs it. Exchanges must be finished in the order in which they were started, and nobody may use world() until
  // all are finished. finish() returns what was sent, with the time that this thread has waited in `seconds`.
  using Ticket = Background::Ticket;
  Ticket start(std::function<void()> exchange);
  CommCounter finish(Ticket ticket);

  // Drops exchanges at the end of a scope that an Error has left before they were finished.
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
  std::unique_ptr<Communicator> across_groups_, within_group_, messages_;  // null: the world
  std::map<Ticket, std::function<void()>> started_;                        // used without overlap
  Ticket next_ = 0;
  std::optional<Background> background_;
};

}  // namespace foe
