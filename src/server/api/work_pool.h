// Runs work that would hold up the event loop: tokenising texts and writing long replies. It has threads of its own,
// which take work in the order of arrival. One of them takes short work only, so that short requests do not wait for
// long ones.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

namespace boost::asio {
class io_context;
}

namespace foe {

class WorkPool {
 public:
  static constexpr std::size_t kLongBytes = 64 << 10;  // work on longer texts is long

  // `io` must outlive this. Throws Error if the threads cannot be started.
  explicit WorkPool(boost::asio::io_context& io);
  // Waits for the work that is running, and drops the rest.
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  // Setting it to true cancels work that has not begun.
  using Cancelled = std::shared_ptr<std::atomic<bool>>;

  // Runs `work` on a thread of the pool. Then, unless it has been cancelled, it calls `done` on the thread of `io`,
  // with the exception that `work` threw or null. Both functions are destroyed on the thread of `io`, the only one that
  // may call this. `bytes` is the length of the text.
  Cancelled run(std::size_t bytes, std::function<void()> work, std::function<void(std::exception_ptr)> done);
  // How many calls of run() are neither done nor dropped.
  std::size_t pending() const { return pending_; }

 private:
  struct Job {
    std::function<void()> work;
    std::function<void(std::exception_ptr)> done;
    Cancelled cancelled;
    std::exception_ptr error = nullptr;
  };
  using Queue = std::deque<std::shared_ptr<Job>>;

  void serve(const std::stop_token& stop, bool takes_long);
  void finish(std::shared_ptr<Job> job);

  boost::asio::io_context& io_;
  std::size_t pending_ = 0;
  std::mutex mutex_;  // protects the queues
  std::condition_variable_any arrived_;
  Queue short_, long_;
  std::array<std::jthread, 2> threads_;
};

}  // namespace foe
