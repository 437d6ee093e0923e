// The Communicator of ranks on several nodes. Broadcasts and sums have two levels, through shared memory inside a node
// and over the network between nodes, so that what all ranks of a node need crosses the network once. In a sum each
// rank exchanges a slice with the ranks of the same place in the other nodes, and Wire rounds only what it sends to
// them. All-to-alls, gathers and messages go straight to their receivers.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "comm/node_grid.h"
#include "comm/shared_comm.h"

namespace foe {

class NodesComm : public Communicator {
 public:
  // `world` reaches all ranks, `inside` the ranks of this rank's node, and `between` the ranks with the same place in
  // all nodes (null if some node does not have that place). All three are in the order of `world`.
  NodesComm(NodeGrid grid, std::unique_ptr<Communicator> world, std::unique_ptr<SharedComm> inside,
            std::unique_ptr<Communicator> between);

  void do_broadcast(std::vector<std::int32_t>& message) override;
  void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) override;
  TermBuffer do_allocate_terms(std::size_t floats) override { return inside_->do_allocate_terms(floats); }
  void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) override;
  void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override;
  void do_send(int peer, std::vector<std::byte> message) override { world_->do_send(peer, std::move(message)); }
  void do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) override {
    world_->do_receive(peer, bytes, message);
  }
  void progress() override { world_->progress(); }
  void flush() override { world_->flush(); }

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> part_ranks, int color) override;
  std::vector<Communicator*> levels() override;

 private:
  // The parts of a sum that each level adds.
  struct Levels {
    SumPlan inside, between;
  };
  const Levels& levels_of(const SumPlan& plan);

  NodeGrid grid_;
  std::unique_ptr<Communicator> world_;  // destroyed last
  std::unique_ptr<SharedComm> inside_;
  std::unique_ptr<Communicator> between_;
  std::map<std::vector<int>, Levels> plans_;  // by SumPlan::begin(); a run uses few plans
  std::vector<float> sums_;                   // of one slice
};

}  // namespace foe
