// What the ranks that share the groups of a model exchange, over a Communicator, while the shards take turns.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "train/group_peers.h"
#include "train/split.h"
#include "train/turns.h"

namespace foe::train {

class SetPeers {
 public:
  // Collective. `split` and `world` must outlive this. `threads` is how many shards compute at a time.
  SetPeers(const Split& split, Communicator& world, int threads);
  ~SetPeers();

  // Those of the i-th shard of this rank; null if each rank has all groups.
  GroupPeers* of_shard(std::size_t i) const;

  // Calls body(i) for all shards of this rank, which may exchange with their peers; without peers on threads of the
  // pool.
  void run(ThreadPool& pool, const std::function<void(std::size_t)>& body);

 private:
  class Shard;

  std::size_t shards_;
  std::unique_ptr<Communicator> part_;
  Communicator* set_ = nullptr;  // null: each rank has all groups
  std::optional<Turns> turns_;
  std::vector<std::unique_ptr<Shard>> peers_;
  std::vector<float> scratch_;  // of the exchange that runs
};

}  // namespace foe::train
