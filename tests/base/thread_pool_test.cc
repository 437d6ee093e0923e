#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <new>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/sanitized.h"

namespace foe {
namespace {

TEST(ThreadPool, CountsTheCaller) {
  for (const int threads : {1, 2, 3, 4}) EXPECT_EQ(ThreadPool(threads).threads(), threads);
  EXPECT_GE(available_threads(), 1);
}

// Plain ints: what the bodies wrote must be visible, without races, once parallel_for has returned.
TEST(ThreadPool, RunsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 4}) {
    ThreadPool pool(threads);
    for (const std::size_t count : {0, 1, 2, 3, 4, 5, 100, 100000}) {
      std::vector<int> calls(count, 0);
      pool.parallel_for(count, [&](std::size_t i) { ++calls[i]; });
      EXPECT_EQ(calls, std::vector<int>(count, 1)) << count << " indices, " << threads << " threads";
    }
  }
}

// On whichever thread a body throws, the owner gets it, and the pool goes on.
TEST(ThreadPool, WhatABodyThrowsReachesTheOwner) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      const auto owner = std::this_thread::get_id();
      std::atomic<int> thrown = 0;
      const auto loop = [&] {
        pool.parallel_for(1000, [&](std::size_t i) {
          // Every second time only workers throw; with one thread there are none.
          if ((round % 2 == 0 || threads == 1 || std::this_thread::get_id() != owner) && i >= 10) {
            ++thrown;
            throw std::runtime_error("body " + std::to_string(i));
          }
        });
      };
      try {
        loop();
        EXPECT_EQ(thrown, 0);
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(std::string(error.what()).substr(0, 5), "body ");
        EXPECT_GT(thrown, 0);
      }
      std::vector<int> calls(100, 0);
      pool.parallel_for(calls.size(), [&](std::size_t i) { ++calls[i]; });
      ASSERT_EQ(calls, std::vector<int>(100, 1));
    }
    EXPECT_THROW(pool.parallel_for(64, [](std::size_t) { throw std::bad_alloc(); }), std::bad_alloc);
  }
  EXPECT_THROW(with_unbound_pool(2, [](ThreadPool&) { throw std::bad_alloc(); }), std::bad_alloc);
}

// As under ulimit -u or in a container: here there is no memory for so many stacks.
TEST(ThreadPoolDeathTest, TooManyThreadsAreAnError) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs more addresses than there would be";
  const auto start_too_many = [] {
    std::ifstream status("/proc/self/statm");
    rlim_t pages = 0;
    status >> pages;
    const rlimit most{pages * 4096 + (rlim_t{64} << 20), RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &most);
    std::string message = "no error";
    try {
      const ThreadPool pool(1000);
    } catch (const Error& error) {
      message = error.what();
    }
    std::fprintf(stderr, "%s\n", message.c_str());
    std::_Exit(message == "no error");
  };
  EXPECT_EXIT(start_too_many(), testing::ExitedWithCode(0),
              "expected 1000 threads, got [0-9]+ and then: Resource temp");
}

// Of few indices a thread takes one at a time, of many several.
TEST(ThreadPool, KnowsWhatAThreadProbablyRunsNext) {
  ThreadPool one(1), two(2);
  EXPECT_EQ(one.probably_next(3, 10), 4);
  EXPECT_EQ(two.probably_next(3, 10), 5);
  EXPECT_EQ(two.probably_next(8, 10), 9);  // there is no 10
  EXPECT_EQ(two.probably_next(0, 1000), 1);
  EXPECT_EQ(two.probably_next(6, 1000), 14);  // 7 at a time
  EXPECT_EQ(two.probably_next(999, 1000), 999);
}

// A forward pass is hundreds of short loops, each reading what others wrote in the last one.
TEST(ThreadPool, ManyShortLoopsSeeEachOther) {
  for (const int threads : {1, 2, 3, 4}) {
    ThreadPool pool(threads);
    constexpr int kSize = 37;
    std::vector<int> before(kSize), after(kSize), expected(kSize);
    for (int i = 0; i < kSize; ++i) before[i] = expected[i] = (i * 29) % kSize;
    for (int loop = 0; loop < 500; ++loop) {
      const auto step = [loop](const std::vector<int>& from, int i) { return from[(i + 1) % kSize] + loop % (i + 1); };
      pool.parallel_for(kSize, [&](std::size_t i) { after[i] = step(before, static_cast<int>(i)); });
      before = after;
      auto next = expected;
      for (int i = 0; i < kSize; ++i) next[i] = step(expected, i);
      expected = next;
    }
    EXPECT_EQ(before, expected) << threads << " threads";
  }
}

// As mpirun binds ranks.
TEST(ThreadPool, UnboundPoolsUseProcessorsThatTheirCallerMayNot) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int cpus = available_threads();
  int cpu = 0;
  while (!CPU_ISSET(cpu, &before)) ++cpu;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  int pool_threads = 0, pool_cpus = 0;
  with_unbound_pool(2, [&](ThreadPool& pool) { pool_threads = pool.threads(), pool_cpus = available_threads(); });
  EXPECT_EQ(available_threads(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_GE(pool_cpus, cpus);
  EXPECT_EQ(pool_threads, std::min(2, pool_cpus));
}

// Workers that have gone to sleep between loops come back.
TEST(ThreadPool, WakesAfterAPause) {
  ThreadPool pool(4);
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> sum = 0;
    pool.parallel_for(100, [&](std::size_t i) { sum += static_cast<int>(i); });
    EXPECT_EQ(sum, 4950);
  }
}

TEST(ThreadPool, IndicesSpreadOverThreads) {
  ThreadPool pool(2);
  // Each of the two indices waits for the other to begin, so one thread alone would never return.
  std::atomic<int> begun = 0;
  pool.parallel_for(2, [&](std::size_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

// Loops may end while workers are still on their way to them, or asleep: more of them than there are processors.
TEST(ThreadPool, ThreadsThatComeLateDoNoHarm) {
  ThreadPool pool(8);
  for (int loop = 0; loop < 2000; ++loop) {
    std::vector<int> calls(2 + loop % 3, 0);
    pool.parallel_for(calls.size(), [&](std::size_t i) { ++calls[i]; });
    ASSERT_EQ(calls, std::vector<int>(calls.size(), 1)) << loop;
    if (loop % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(ThreadPool, StopsIdleAndUnused) {
  for (int i = 0; i < 100; ++i) ThreadPool pool(1 + i % 4);
}

TEST(SpinUntil, SaysWhetherItHeld) {
  EXPECT_TRUE(spin_until([] { return true; }));
  EXPECT_FALSE(spin_until([] { return false; }));
  int calls = 0;
  EXPECT_TRUE(spin_until([&] { return ++calls == 10; }));
  EXPECT_EQ(calls, 10);
}

}  // namespace
}  // namespace foe
