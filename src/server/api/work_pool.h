// Work that would hold up the event loop: reading long texts, and writing long replies. It runs on threads of its own,
// in order of arrival, with one of the threads for short work only: nobody's short request waits for another's long
// one.
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
  static constexpr std::size_t kLongBytes = 64 << 10;

  // `io` outlives this. Throws Error where no threads can be started.
  explicit WorkPool(boost::asio::io_context& io);
  // Waits for the work that is going on, and drops the rest.
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  // Set to true, it keeps work from being done that has not begun.
  using Cancelled = std::shared_ptr<std::atomic<bool>>;

  // The thread of `io` only. Runs `work` on a thread, then `done` with what it threw, if it did, on the thread of `io`,
  // unless it has been cancelled until then. Both are destroyed on the thread of `io`. `bytes`: how long the text is.
  Cancelled run(std::size_t bytes, std::function<void()> work, std::function<void(std::exception_ptr)> done);
  // What has been given to run() and is neither done nor dropped.
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
  std::mutex mutex_;  // of the queues
  std::condition_variable_any arrived_;
  Queue short_, long_;
  std::array<std::jthread, 2> threads_;
};

}  // namespace foe
