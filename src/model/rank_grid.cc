#include "model/rank_grid.h"

namespace foe {

RankGrid::RankGrid(const Placement& placement, Communicator& world, bool overlap) : world_(world) {
  check_overlap(placement, overlap);
  const Share& share = placement.ranks[world.rank()];
  const int groups = placement.group_ranks(), members = placement.members;
  if (groups > 1 && groups < world.size())
    across_groups_ = world.split(share.idle() ? -1 : share.stage * members + share.member, share.groups.begin);
  if (members > 1 && members < world.size())
    within_group_ =
        world.split(share.idle() ? -1 : share.stage * placement.stage_ranks() + share.groups.begin, share.member);
  if (placement.stages > 1) messages_ = world.split(0, world.rank());
  // Along an axis with one rank nothing is exchanged or counted.
  if (groups == 1 || share.idle()) across_groups_ = make_self_comm();
  if (members == 1 || share.idle()) within_group_ = make_self_comm();
  if (overlap && world.size() > 1) background_.emplace(world);
}

RankGrid::Ticket RankGrid::start(std::function<void()> exchange) {
  if (background_) return background_->start(std::move(exchange));
  started_[next_] = std::move(exchange);
  return next_++;
}

CommCounter RankGrid::finish(Ticket ticket) {
  if (background_) return background_->finish(ticket);
  const auto exchange = started_.extract(ticket);
  const CommCounter before = world_.counters().total();
  exchange.mapped()();
  return world_.counters().total() - before;
}

RankGrid::Scope::~Scope() {
  grid_.started_.clear();
  if (grid_.background_) grid_.background_->drop();
}

}  // namespace foe
