// What the ranks that share the groups of a federated model exchange within the passes of one shard. Each has some of
// the groups, with their heads and experts, and all tokens of the shard. What is the same for all groups (the residual,
// norms, the router's choice) each rank computes alike. One of the ranks, the shard's, computes its ends: the last
// norm, the head, and the gradient of the embedding.
//
// All ranks call these functions in the same order. Buffers must stay until a call returns.
#pragma once

#include <cstddef>
#include <span>

#include "comm/sum_plan.h"

namespace foe::train {

class GroupPeers {
 public:
  // `plan` is that of a sum over groups; `owner` is the rank that has the shard's ends.
  GroupPeers(const SumPlan& plan, int rank, int owner) : plan_(plan), rank_(rank), owner_(owner) {}
  virtual ~GroupPeers() = default;

  const SumPlan& plan() const { return plan_; }
  int rank() const { return rank_; }
  int owner() const { return owner_; }
  bool owns_ends() const { return rank_ == owner_; }

  // Adds the ranks' partial sums over groups, vectors of `count` floats one after the other, into the first: on all
  // ranks, or on the owner alone.
  virtual void sum(float* partials, std::size_t count) = 0;
  virtual void sum_at_owner(float* partials, std::size_t count) = 0;
  // Replaces the values of all ranks by those of the owner.
  virtual void spread(std::span<float> values) = 0;
  // Everyone gets the bytes of all ranks, one after the other.
  virtual void gather(std::span<const std::byte> own, std::span<std::byte> all) = 0;

 private:
  const SumPlan& plan_;
  int rank_, owner_;
};

}  // namespace foe::train
