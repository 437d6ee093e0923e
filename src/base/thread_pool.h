// A fixed set of threads that run one parallel loop at a time. They spin briefly between loops, because a forward pass
// is hundreds of short loops, and then sleep, because an idle server must cost nothing. A loop does not wait for
// threads that have not come to it, because another process has their processor: it then runs on those that have.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

namespace foe {

class ThreadPool {
 public:
  // `threads` counts the caller: ThreadPool(1) starts none and runs everything inline. With `processors`, each thread
  // is bound to one of them, in turn, and the caller to the first. Throws Error where the system has no more threads.
  explicit ThreadPool(int threads, std::span<const int> processors = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(index) once for every index in [0, count), on any thread, in any order, and returns when all are done.
  // Only from the thread that owns the pool; not from within a body. What a body throws, this throws when all that have
  // begun are done; of several, one. Those that had not begun are left out then.
  template <typename Body>
  void parallel_for(std::size_t count, Body&& body) {
    if (count <= 1 || workers_.empty()) {
      for (std::size_t i = 0; i < count; ++i) body(i);
      return;
    }
    run(
        count, [](void* context, std::size_t index) { (*static_cast<std::remove_reference_t<Body>*>(context))(index); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // What the thread that runs `index` of a loop over `count` will run then, if all are equally fast; count - 1 at most.
  std::size_t probably_next(std::size_t index, std::size_t count) const;

 private:
  std::size_t taken_together(std::size_t count) const;
  using Call = void (*)(void* context, std::size_t index);
  void run(std::size_t count, Call call, void* context);
  void work();
  void drain();
  void end_workers();

  // The current loop. Written by the owner while no worker is inside.
  std::size_t count_ = 0, together_ = 1;  // indices that a thread takes at a time
  Call call_ = nullptr;
  void* context_ = nullptr;

  alignas(64) std::atomic<std::size_t> next_{0};
  alignas(64) std::atomic<unsigned> generation_{0};
  // How many workers are in the loop; kOpen while more may enter. One word, so that none enters as it is closed.
  static constexpr unsigned kOpen = 1u << 31;
  alignas(64) std::atomic<unsigned> inside_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  std::exception_ptr error_;  // of the body that failed first; read by the owner when no worker is inside
  std::vector<std::thread> workers_;
};

// Threads that this process may run on (its affinity mask), at least 1.
int available_threads();

// Lets the calling thread, and those that it starts from now on, run on these processors only. False if the system
// refuses, as it does if this process may use none of them.
bool bind_thread(std::span<const int> processors);

// Calls run(pool) once with a pool of at most so many threads, on any of the processors that the system has for this
// process, also where its launcher has bound it to a few of them: as mpirun does with ranks, which together have more.
// Throws what `run` throws.
void with_unbound_pool(int threads, const std::function<void(ThreadPool&)>& run);

// Calls `ready` until it holds: spins about 10 ns for each of the tries, then returns false so that the caller can
// block instead.
template <typename Ready>
bool spin_until(Ready&& ready, int tries = 2000) {
  for (int i = 0; i < tries; ++i) {
    if (ready()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  return ready();
}

}  // namespace foe
