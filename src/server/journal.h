// What was accepted and is not answered yet: the requests, each with the tokens that have come for it. When the ranks
// are restarted, in_flight() is what they are given: each request goes on behind its tokens.
//
// One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "core/request.h"

namespace foe {

class Journal {
 public:
  explicit Journal(std::size_t capacity) : capacity_(capacity) {}

  std::size_t size() const { return requests_.size(); }
  std::size_t room() const { return capacity_ - requests_.size(); }

  // Takes a request in, under a number of its own that becomes its id. There must be room.
  const Request& add(Request request);
  // Notes one more token; the last one ends the entry. False, and nothing happens, for an id that is not here: tokens
  // of an aborted request may still be on their way. Throws Error for a token past the request's limit.
  bool record(const TokenEvent& event);
  void erase(std::int64_t id) { requests_.erase(id); }

  // In the order in which they were accepted.
  std::vector<Request> in_flight() const;

 private:
  std::size_t capacity_;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, Request> requests_;
};

}  // namespace foe
