// A fixed set of threads that run one parallel loop at a time. Between loops they spin briefly, because a forward pass
// consists of hundreds of short loops, and then sleep, because an idle server must cost nothing. If another process has
// the processor of a thread, the loop does not wait for that thread: it runs on the threads that have joined it.
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
  // `threads` includes the calling thread: ThreadPool(1) starts none and runs everything on the caller. If `processors`
  // is not empty, the threads are bound to these processors in turn, the caller to the first. Throws Error if the
  // system cannot start so many threads.
  explicit ThreadPool(int threads, std::span<const int> processors = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Returns how many loops have run on several threads. Each ends with all of them waiting for the last.
  std::size_t loops() const { return loops_; }

  // Calls body(index) once for every index in [0, count), on any thread and in any order, and returns when all calls
  // have returned. Only the thread that made the pool may call this, and not from within a body. If a body throws,
  // calls that have not begun are skipped, and when the others have returned this throws the exception (one of them, if
  // there are several).
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

  // Returns the index that the thread which runs `index`, in a loop over `count`, will run next if all threads are
  // equally fast: at most count - 1. For prefetching.
  std::size_t probably_next(std::size_t index, std::size_t count) const;

 private:
  std::size_t taken_together(std::size_t count) const;
  using Call = void (*)(void* context, std::size_t index);
  void run(std::size_t count, Call call, void* context);
  void work();
  void drain();
  void end_workers();

  // The current loop, which the owner writes while no worker is inside.
  std::size_t loops_ = 0, count_ = 0, together_ = 1;  // indices that a thread takes at a time
  Call call_ = nullptr;
  void* context_ = nullptr;

  alignas(64) std::atomic<std::size_t> next_{0};
  alignas(64) std::atomic<unsigned> generation_{0};
  // How many workers are in the loop, plus kOpen while more may enter. This is one word so that no worker can enter
  // while the loop is being closed.
  static constexpr unsigned kOpen = 1u << 31;
  alignas(64) std::atomic<unsigned> inside_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  std::exception_ptr error_;  // what the first body threw; the owner reads it when no worker is inside
  std::vector<std::thread> workers_;
};

// Returns how many processors this process may run on (its affinity mask), at least 1.
int available_threads();

// Lets the calling thread, and threads that it starts later, run on these processors only. Returns false if the system
// refuses, as it does if this process may use none of them.
bool bind_thread(std::span<const int> processors);

// Calls run(pool) once, on a thread of its own, with a pool of at most `threads` threads that may run on all processors
// that the system allows this process. mpirun binds a rank to a few processors, although the ranks together have more;
// this undoes that for the call. Throws what `run` throws.
void with_unbound_pool(int threads, const std::function<void(ThreadPool&)>& run);

// Calls `ready` until it returns true, at most `tries` times at about 10 ns each. Returns false if it never did: then
// the caller should block.
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
