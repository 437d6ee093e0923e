#include "base/thread_pool.h"

#include <algorithm>
#include <sched.h>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace foe {

ThreadPool::ThreadPool(int threads, std::span<const int> processors) {
  const auto bind = [processors](int i) {
    if (!processors.empty()) bind_thread(processors.subspan(i % processors.size(), 1));
  };
  workers_.reserve(std::max(threads, 1) - 1);
  for (int i = 1; i < threads; ++i) {
    bind(i);  // a thread inherits the binding of the one that starts it
    try {
      workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      end_workers();
      fail("expected {} threads, got {} and then: {} (a limit of processes, as of ulimit -u, or of memory)", threads, i,
           error.code().message());
    }
  }
  bind(0);
}

ThreadPool::~ThreadPool() {
  end_workers();
}

void ThreadPool::end_workers() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(std::size_t count, Call call, void* context) {
  ++loops_;
  count_ = count;
  together_ = taken_together(count);
  call_ = call;
  context_ = context;
  next_.store(0, std::memory_order_relaxed);
  inside_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  drain();
  if (inside_.fetch_and(~kOpen, std::memory_order_acq_rel) != kOpen &&
      !spin_until([this] { return inside_.load(std::memory_order_acquire) == 0; }))
    for (unsigned left; (left = inside_.load(std::memory_order_acquire)) != 0;)
      inside_.wait(left, std::memory_order_acquire);
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

std::size_t ThreadPool::taken_together(std::size_t count) const {
  constexpr std::size_t kTakes = 64;  // the most times that a thread takes indices: enough for balance, at little cost
  return std::max<std::size_t>(1, count / (kTakes * threads()));
}

std::size_t ThreadPool::probably_next(std::size_t index, std::size_t count) const {
  const std::size_t together = taken_together(count);
  const std::size_t next = index + 1 + ((index + 1) % together == 0 ? (threads() - 1) * together : 0);
  return std::min(next, count - 1);
}

void ThreadPool::work() {
  for (unsigned seen = 0;;) {
    if (!spin_until([&] { return generation_.load(std::memory_order_acquire) != seen; }))
      generation_.wait(seen, std::memory_order_acquire);
    const unsigned now = generation_.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    unsigned inside = inside_.load(std::memory_order_relaxed);
    while ((inside & kOpen) && !inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) {
    }
    if (!(inside & kOpen)) continue;
    drain();
    if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_one();
  }
}

void ThreadPool::drain() {
  try {
    for (std::size_t begin; (begin = next_.fetch_add(together_, std::memory_order_relaxed)) < count_;)
      for (std::size_t i = begin, end = std::min(count_, begin + together_); i < end; ++i) call_(context_, i);
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
  }
}

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

bool bind_thread(std::span<const int> processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : processors)
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

void with_unbound_pool(int threads, const std::function<void(ThreadPool&)>& run) {
  // This thread's binding is inherited by the threads of the pool.
  std::exception_ptr error;
  std::thread([&] {
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &all);
    sched_setaffinity(0, sizeof all, &all);  // the system takes those that exist; if it fails, the binding stays
    try {
      ThreadPool pool(std::min(threads, available_threads()));
      run(pool);
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) std::rethrow_exception(error);
}

}  // namespace foe
