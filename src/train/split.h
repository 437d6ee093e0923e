// How the ranks of a training run share a step. They form a grid: `group_ranks` ranks share the groups of a federated
// model, and so many sets of them share the shards of a batch.
//
// The ranks of a set are neighbours: rank m * group_ranks + g has the m-th part of the shards and of each layer the
// g-th part of the groups, with their heads and experts. The ends of a shard (the last norm, the head, and the gradient
// of the embedding) have no groups: the ranks of a set share the ends of its shards, each those of whole shards.
#pragma once

#include "comm/sum_plan.h"
#include "core/share.h"

namespace foe::train {

class Split {
 public:
  // Throws Error if a rank would have no shards or no groups, or if there are other ranks than in whole sets.
  Split(int shards, int streams, int ranks, int group_ranks);

  int ranks() const { return ends_.ranks(); }
  int sets() const { return shards_.ranks(); }
  int group_ranks() const { return streams_.ranks(); }
  int set_of(int rank) const { return rank / group_ranks(); }
  int place_of(int rank) const { return rank % group_ranks(); }  // in its set: the g above

  // What a rank has: shards, those of them whose ends it computes, which may be none, and streams (Dims::streams).
  Range shards(int rank) const { return part(shards_, set_of(rank)); }
  Range ends(int rank) const { return part(ends_, rank); }
  Range streams(int rank) const { return part(streams_, place_of(rank)); }
  // The place in each set of the rank that has a stream.
  int place_with(int stream) const;
  // The place in its set of the rank that computes a shard's ends.
  int place_with_ends(int shard) const;

  // Sums over shards, between the ranks that have the same streams or, of what the ends of shards add, between all
  // ranks; and the sum over streams within a set.
  const SumPlan& over_sets() const { return shards_; }
  const SumPlan& over_ends() const { return ends_; }
  const SumPlan& over_streams() const { return streams_; }

 private:
  static Range part(const SumPlan& plan, int i) { return {plan.begin()[i], plan.begin()[i + 1]}; }

  SumPlan shards_, ends_, streams_;
};

}  // namespace foe::train
