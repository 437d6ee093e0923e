// Compiles the grammars of requests on a thread of its own, so that the step loop goes on meanwhile.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "core/request.h"
#include "grammar/cache.h"

namespace foe {

// One thread, besides its own.
class GrammarQueue {
 public:
  // A request that may go on: with its grammar, or why it has none.
  struct Ready {
    Request request;
    std::shared_ptr<const Grammar> grammar;
    std::string refusal;
  };

  // At most `most` different grammars are in use at once: a request that needs one more waits, those of lower priority
  // first, until another has ended. Throws Error where no thread can be started.
  explicit GrammarQueue(std::size_t most);
  ~GrammarQueue();
  GrammarQueue(const GrammarQueue&) = delete;
  GrammarQueue& operator=(const GrammarQueue&) = delete;

  void add(Request request);
  // Forgets a request that has not come back from take().
  void abort(std::int64_t id);
  // Those whose turn has come, in that order.
  std::list<Ready> take();
  // Requests that have not come back.
  std::size_t size();
  // To be polled: readable once there is something to take.
  int descriptor() const { return event_; }

 private:
  void serve(const std::stop_token& stop);
  void wake() const;

  const std::size_t most_;
  const int event_;
  GrammarCache grammars_;
  std::mutex mutex_;  // of what follows
  std::condition_variable_any changed_;
  std::list<Ready> waiting_;    // in the order of their turns; lists, as moving on must not need memory
  std::int64_t compiling_ = 0;  // the id of the request that the thread has; 0: none
  std::list<Ready> ready_;
  std::jthread thread_;
};

}  // namespace foe
