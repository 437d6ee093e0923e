// Compiles the grammars of requests on a thread of its own, so that the step loop does not wait for them.
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

// All calls come from one thread (that of the step loop).
class GrammarQueue {
 public:
  // A request and, once it is ready, its grammar or the reason why there is none.
  struct Compilation {
    Request request;
    std::shared_ptr<const Grammar> grammar;
    std::string refusal;
  };

  // At most `most` different grammars are in use at once. A request that needs one more waits until another has ended;
  // those with a lower `priority` value go first. Throws Error if no thread can be started.
  explicit GrammarQueue(std::size_t most);
  ~GrammarQueue();
  GrammarQueue(const GrammarQueue&) = delete;
  GrammarQueue& operator=(const GrammarQueue&) = delete;

  void add(Request request);
  // Forgets a request that take() has not returned.
  void abort(std::int64_t id);
  // Returns the requests that are ready, in the order of their turns.
  std::list<Compilation> take();
  // Returns how many requests take() has not returned.
  std::size_t size();
  // A file descriptor to poll, which is readable while there is something to take.
  int descriptor() const { return event_; }

 private:
  void serve(const std::stop_token& stop);
  void wake() const;

  const std::size_t most_;
  const int event_;
  GrammarCache grammars_;
  std::mutex mutex_;  // protects what follows
  std::condition_variable_any changed_;
  std::list<Compilation> waiting_;  // in the order of their turns; a list, so that moving an element needs no memory
  std::int64_t compiling_ = 0;      // the id of the request that is being compiled; 0: none
  std::list<Compilation> ready_;
  std::jthread thread_;
};

}  // namespace foe
