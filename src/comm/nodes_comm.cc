#include "comm/nodes_comm.h"

#include <algorithm>

#include "base/check.h"

namespace foe {

NodesComm::NodesComm(NodeGrid grid, std::unique_ptr<Communicator> world, std::unique_ptr<SharedComm> inside,
                     std::unique_ptr<Communicator> between)
    : Communicator(world->rank(), world->nodes()),
      grid_(std::move(grid)),
      world_(std::move(world)),
      inside_(std::move(inside)),
      between_(std::move(between)) {
  FOE_CHECK(inside_->rank() == grid_.place, "place {} is rank {}", grid_.place, inside_->rank());
  FOE_CHECK((between_ != nullptr) == (grid_.place < grid_.fewest), "place {} of {}", grid_.place, grid_.fewest);
  if (between_) FOE_CHECK(between_->rank() == grid_.node, "node {} is rank {}", grid_.node, between_->rank());
  set_timeout(world_->timeout());
  count_levels();
}

std::vector<Communicator*> NodesComm::levels() {
  return {world_.get(), inside_.get(), between_.get()};
}

std::unique_ptr<Communicator> NodesComm::make_part(std::span<const int> part_ranks, int color) {
  return part_of(*world_, part_ranks, color);
}

void NodesComm::do_broadcast(std::vector<std::int32_t>& message) {
  if (grid_.place == 0) between_->do_broadcast(message);
  inside_->do_broadcast(message);
}

// There are three steps. Inside each node, its ranks' partials are added to those of the node. Between the nodes, ranks
// with the same place add one slice of these. Inside each node, all ranks receive the other ranks' slices.
void NodesComm::do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  const Levels& levels = levels_of(plan);
  const Slices slices{count, slices_between_nodes(grid_.fewest, count)};
  const std::size_t size = grid_.place < slices.parts ? slices.size(grid_.place) : 0;
  sums_.resize(std::max(1, levels.inside.sums()) * size);
  inside_->reduce_scatter(levels.inside, partials, slices, Wire::kF32, sums_.data());
  if (size > 0) {
    between_->do_sum(levels.between, sums_.data(), size, wire);
    std::copy_n(sums_.data(), size, partials + slices.begin(grid_.place));
  }
  inside_->all_gather(partials, slices, Wire::kF32);
}

const NodesComm::Levels& NodesComm::levels_of(const SumPlan& plan) {
  const auto found = plans_.find(plan.begin());
  if (found != plans_.end()) return found->second;
  const int first = grid_.begin[grid_.node], last = grid_.begin[grid_.node + 1];
  return plans_.emplace(plan.begin(), Levels{plan.among(first, last), plan.between(grid_.begin)}).first->second;
}

void NodesComm::do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) {
  world_->do_gather(send, bytes, out);
}

void NodesComm::do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                              std::span<std::byte> receive, std::span<std::size_t> receive_bytes) {
  world_->do_all_to_all(send, send_bytes, receive, receive_bytes);
}

}  // namespace foe
