#include "server/api/work_pool.h"

#include <chrono>
#include <new>
#include <system_error>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "base/error.h"

namespace foe {

WorkPool::WorkPool(boost::asio::io_context& io) : io_(io) {
  try {
    for (std::size_t i = 0; i < threads_.size(); ++i)
      threads_[i] = std::jthread([this, i](const std::stop_token& stop) { serve(stop, i == 0); });
  } catch (const std::system_error& error) {
    fail("cannot start {} threads that read requests: {} (a limit of processes, as of ulimit -u)", threads_.size(),
         error.what());
  }
}

WorkPool::~WorkPool() {
  for (std::jthread& thread : threads_) thread.request_stop();  // their destructors wait for them
}

WorkPool::Cancelled WorkPool::run(std::size_t bytes, std::function<void()> work,
                                  std::function<void(std::exception_ptr)> done) {
  const auto job =
      std::make_shared<Job>(Job{std::move(work), std::move(done), std::make_shared<std::atomic<bool>>(false)});
  ++pending_;
  {
    const std::lock_guard lock(mutex_);
    (bytes > kLongBytes ? long_ : short_).push_back(job);
  }
  arrived_.notify_all();
  return job->cancelled;
}

void WorkPool::serve(const std::stop_token& stop, bool takes_long) {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      if (!arrived_.wait(lock, stop, [&] { return !short_.empty() || (takes_long && !long_.empty()); })) return;
      if (stop.stop_requested()) return;
      Queue& queue = takes_long && !long_.empty() ? long_ : short_;
      job = std::move(queue.front());
      queue.pop_front();
    }
    try {
      if (!*job->cancelled) job->work();
    } catch (...) {
      job->error = std::current_exception();
    }
    finish(std::move(job));
  }
}

// Hands the job back to the thread of io_. If there is no memory for that, it tries again, because a client waits for
// the job.
void WorkPool::finish(std::shared_ptr<Job> job) {
  for (;;) {
    try {
      return boost::asio::post(io_, [this, job]() mutable {
        --pending_;
        const std::shared_ptr<Job> owned = std::move(job);
        if (!*owned->cancelled) owned->done(owned->error);
      });
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

}  // namespace foe
