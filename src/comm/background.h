// Collectives that go on while their rank computes. A thread of its own runs them one after the other, in the order in
// which they were started, also after one that has failed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "comm/communicator.h"

namespace foe {

class Background {
 public:
  // `counted` is the communicator whose counters the exchanges add to. It must outlive this.
  explicit Background(const Communicator& counted);
  // Waits until all exchanges that were started have run. To leave early, call drop() before.
  ~Background();

  // Starts an exchange. Until finish() returns, nobody else may use its communicators, or the memory that it reads and
  // writes. start(), finish() and drop() are called by one thread.
  using Ticket = std::uint64_t;
  Ticket start(std::function<void()> exchange);
  // Waits for the exchange, once for each ticket. Returns what it sent, with the time that this call waited in
  // `seconds`. Throws what the exchange threw.
  CommCounter finish(Ticket ticket);
  // Waits for the exchange that is running, and forgets it and all that have not begun.
  void drop();

 private:
  struct Done {
    CommCounter sent;
    std::exception_ptr error;
  };
  void work();

  const Communicator& counted_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> started_;  // exchanges that have not begun
  std::map<Ticket, Done> done_;                // exchanges that are done, for which finish() has not been called
  Ticket next_ = 0;                            // the next ticket to give out
  Ticket running_ = 0;                         // the next ticket to run
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

// Whether the calling thread is the thread of a Background. Such a thread must not spin, as it would take the core from
// the computation beside which it runs.
bool in_background();

}  // namespace foe
