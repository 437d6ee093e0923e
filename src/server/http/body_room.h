// A limit on the memory that the bodies of requests take, over all connections. A connection asks for all bytes of a
// body before it reads the first, so that no connection holds a part and waits for the rest. If there is no room, it
// waits in line.
//
// All calls come from one thread. Owned by a shared_ptr.
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
  using Held = std::shared_ptr<void>;  // returns its bytes when the last copy is destroyed

  explicit BodyRoom(std::size_t bytes) : free_(bytes), most_(bytes) {}

  // Calls `granted` when there is room, which may be at once. A demand for more than the whole limit counts as the
  // whole limit.
  void ask(std::size_t bytes, std::function<void(Held)> granted) {
    waiting_.push_back({std::min(bytes, most_), std::move(granted)});
    serve();
  }
  // Forgets all that wait. To be called at the end.
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
