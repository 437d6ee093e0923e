// Collectives that go on while their rank computes: on a thread of its own, one after the other, in the order in which
// they were started.
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
  // `counted`: the communicator that counts what is started here.
  explicit Background(const Communicator& counted);
  // Waits for what is going on.
  ~Background();

  // Begins an exchange. Until it is finished, nobody else may use the communicators, nor what it reads and writes. One
  // thread starts, finishes and drops.
  using Ticket = std::uint64_t;
  Ticket start(std::function<void()> exchange);
  // Waits for it. Returns what it sent; `seconds` is how long this call waited. Throws what the exchange threw.
  CommCounter finish(Ticket ticket);
  // Waits for the exchange that goes on, and forgets it and all that have not begun.
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
  std::deque<std::function<void()>> started_;  // and not begun
  std::map<Ticket, Done> done_;                // and not finished
  Ticket next_ = 0;                            // to start,
  Ticket running_ = 0;                         // to run
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

// Whether the calling thread is such a one: it must not spin, as it would take the core from what it hides behind.
bool in_background();

}  // namespace foe
