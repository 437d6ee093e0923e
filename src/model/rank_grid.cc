#include "model/rank_grid.h"

namespace foe {

RankGrid::RankGrid(const Placement& placement, Communicator& world) : world_(world) {
  const Share& share = placement.ranks[world.rank()];
  const int groups = placement.group_ranks(), members = placement.members;
  if (groups > 1 && groups < world.size()) groups_ = world.split(share.idle() ? -1 : share.member, share.groups.begin);
  if (members > 1 && members < world.size())
    members_ = world.split(share.idle() ? -1 : share.groups.begin, share.member);
  // Nothing is exchanged, nor counted, along an axis of one.
  if (groups == 1 || share.idle()) groups_ = make_self_comm();
  if (members == 1 || share.idle()) members_ = make_self_comm();
}

}  // namespace foe
