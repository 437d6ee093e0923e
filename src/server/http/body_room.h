// Memory for the bodies of requests, a bound over all connections. A body asks for all of its bytes before the first is
// read, so that nobody holds a part and waits for the rest; who finds no room waits in line.
//
// One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

namespace foe {

class BodyRoom : public std::enable_shared_from_this<BodyRoom> {
 public:
  using Held = std::shared_ptr<void>;  // gives the bytes back when the last copy goes

  explicit BodyRoom(std::size_t bytes) : free_(bytes), most_(bytes) {}

  // Calls `granted`, now or later. More than there is in all counts as all.
  void ask(std::size_t bytes, std::function<void(Held)> granted) {
    waiting_.push_back({std::min(bytes, most_), std::move(granted)});
    serve();
  }
  // Forgets all that wait: at the end.
  void drop() { waiting_.clear(); }

 private:
  struct Waiting {
    std::size_t bytes;
    std::function<void(Held)> granted;
  };

  void serve() {
    while (!waiting_.empty() && waiting_.front().bytes <= free_) {
      const Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      free_ -= next.bytes;
      next.granted(Held(nullptr, [self = shared_from_this(), bytes = next.bytes](void*) {
        self->free_ += bytes;
        self->serve();
      }));
    }
  }

  std::size_t free_, most_;
  std::deque<Waiting> waiting_;
};

}  // namespace foe
