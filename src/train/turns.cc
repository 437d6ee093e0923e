#include "train/turns.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"

namespace foe::train {
namespace {

// Ends a shard because of another's error, which run() throws.
struct Stopped {};

}  // namespace

void Turns::run(const std::function<void(int)>& body) {
  std::fill(posted_.begin(), posted_.end(), nullptr);
  std::fill(ended_.begin(), ended_.end(), false);
  free_ = threads_;
  std::vector<std::thread> threads;
  {
    std::unique_lock lock(mutex_);
    try {
      for (int s = 0; s < shards_; ++s) threads.emplace_back([this, s, &body] { run_shard(s, body); });
    } catch (const std::system_error& error) {
      error_ = std::make_exception_ptr(
          Error(fmt::format("expected a thread for each of {} shards, got: {} (a limit of processes, as of ulimit -u)",
                            shards_, error.code().message())));
    }
    while (run_round(lock)) continue;
    changed_.notify_all();
  }
  for (std::thread& thread : threads) thread.join();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

// Runs one exchange of each shard. Returns false if there are no more.
bool Turns::run_round(std::unique_lock<std::mutex>& lock) {
  bool any = false;
  for (int s = 0; s < shards_; ++s) {
    changed_.wait(lock, [&] { return posted_[s] || ended_[s] || error_; });
    if (error_) return false;
    if (ended_[s]) continue;
    any = true;
    running_ = s;
    const std::function<void()>& exchange = *posted_[s];
    lock.unlock();
    std::exception_ptr error;
    try {
      exchange();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    running_ = -1;
    posted_[s] = nullptr;
    if (error) error_ = error;
    changed_.notify_all();
  }
  return any;
}

void Turns::run_shard(int shard, const std::function<void(int)>& body) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return free_ > 0 || error_; });
    if (error_) return;
    --free_;
  }
  std::exception_ptr error;
  try {
    body(shard);
  } catch (const Stopped&) {
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (error && !error_) error_ = error;
  ended_[shard] = true;
  ++free_;
  changed_.notify_all();
}

void Turns::exchange(int shard, const std::function<void()>& exchange) {
  std::unique_lock lock(mutex_);
  posted_[shard] = &exchange;
  ++free_;
  changed_.notify_all();
  // What runs reads and writes the memory of this shard, also after another one has failed.
  changed_.wait(lock, [&] { return !posted_[shard] || (error_ && running_ != shard); });
  changed_.wait(lock, [&] { return free_ > 0 || error_; });
  --free_;
  if (error_) throw Stopped{};
}

}  // namespace foe::train
