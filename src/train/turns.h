// Shards of a step that exchange with other ranks while they run. Each has a thread, so that a pass is one function
// from its begin to its end; so many of them compute at a time as there are threads to compute on, and a shard that
// waits for an exchange lets another one compute.
//
// All ranks make the same exchanges in the same order, whatever their threads do: the first of each shard, by the
// shard's index, then the second of each, and so on. So all shards must make as many.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

namespace foe::train {

class Turns {
 public:
  Turns(int shards, int threads) : shards_(shards), threads_(threads), posted_(shards), ended_(shards) {}

  // Calls body(shard) for all shards, each on a thread of its own, and meanwhile runs their exchanges on the calling
  // thread. When a body or an exchange throws, it waits until all shards have come to their next exchange or their end,
  // and throws the same (one of them, if there are several).
  void run(const std::function<void(int)>& body);

  // To be called in a body: returns when the exchange has run.
  void exchange(int shard, const std::function<void()>& exchange);

 private:
  void run_shard(int shard, const std::function<void(int)>& body);
  bool run_round(std::unique_lock<std::mutex>& lock);

  const int shards_, threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<const std::function<void()>*> posted_;  // the exchange that a shard waits for
  std::vector<bool> ended_;
  int free_ = 0;      // of the threads to compute on
  int running_ = -1;  // the shard whose exchange runs
  std::exception_ptr error_;
};

}  // namespace foe::train
