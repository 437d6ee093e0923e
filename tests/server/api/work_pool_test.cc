#include "server/api/work_pool.h"

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace foe {
namespace {

using testing::ElementsAre;

// Runs the event loop until so much work is done.
void run_until(boost::asio::io_context& io, const std::function<bool()>& condition) {
  const auto work = boost::asio::make_work_guard(io);
  io.restart();
  while (!condition()) io.run_one_for(std::chrono::milliseconds(10));
}

TEST(WorkPool, WorksElsewhereAndEndsHere) {
  boost::asio::io_context io;
  WorkPool pool(io);
  std::thread::id worked, ended;
  std::string failure;
  pool.run(
      1, [&] { worked = std::this_thread::get_id(); },
      [&](const std::exception_ptr& error) {
        EXPECT_EQ(error, nullptr);
        ended = std::this_thread::get_id();
      });
  pool.run(
      1, [] { throw std::runtime_error("no"); },
      [&](const std::exception_ptr& error) {
        try {
          std::rethrow_exception(error);
        } catch (const std::runtime_error& thrown) {
          failure = thrown.what();
        }
      });
  EXPECT_EQ(pool.pending(), 2u);
  run_until(io, [&] { return pool.pending() == 0; });
  EXPECT_EQ(ended, std::this_thread::get_id());
  EXPECT_NE(worked, ended);
  EXPECT_EQ(failure, "no");
}

TEST(WorkPool, DoesShortWorkWhileLongWorkGoesOn) {
  boost::asio::io_context io;
  WorkPool pool(io);
  std::promise<void> go_on;
  std::vector<int> order;
  const auto end = [&](int n) { return [&order, n](const std::exception_ptr&) { order.push_back(n); }; };
  pool.run(
      WorkPool::kLongBytes + 1, [wait = go_on.get_future().share()] { wait.wait(); }, end(1));
  pool.run(
      WorkPool::kLongBytes + 1, [] {}, end(2));
  pool.run(
      WorkPool::kLongBytes, [] {}, end(3));
  pool.run(
      1, [] {}, end(4));
  run_until(io, [&] { return order.size() == 2; });
  EXPECT_THAT(order, ElementsAre(3, 4));
  go_on.set_value();
  run_until(io, [&] { return order.size() == 4; });
  EXPECT_THAT(order, ElementsAre(3, 4, 1, 2));
}

TEST(WorkPool, SkipsWhatIsCancelled) {
  boost::asio::io_context io;
  WorkPool pool(io);
  std::promise<void> go_on;
  bool worked = false, done = false;
  pool.run(
      WorkPool::kLongBytes + 1, [wait = go_on.get_future().share()] { wait.wait(); }, [](const std::exception_ptr&) {});
  const auto kept = std::make_shared<int>();
  const auto cancelled = pool.run(
      WorkPool::kLongBytes + 1, [&worked, kept] { worked = true; },
      [&done, kept](const std::exception_ptr&) { done = true; });
  *cancelled = true;
  go_on.set_value();
  // The thread lets go of the work a moment after it has handed it back.
  run_until(io, [&] { return pool.pending() == 0 && kept.use_count() == 1; });
  EXPECT_FALSE(worked || done);
  EXPECT_EQ(kept.use_count(), 1) << "what the work held is kept";
}

TEST(WorkPool, EndsWithWorkThatHasNotBegun) {
  const auto kept = std::make_shared<int>();
  {
    boost::asio::io_context io;
    WorkPool pool(io);
    for (int i = 0; i < 100; ++i)
      pool.run(
          WorkPool::kLongBytes + 1, [kept] {}, [kept](const std::exception_ptr&) { FAIL(); });
  }
  EXPECT_EQ(kept.use_count(), 1);
}

}  // namespace
}  // namespace foe
