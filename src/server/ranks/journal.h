// The requests that were accepted and are not answered in full, each with the tokens that have come for it. It is in
// memory only. When ranks are started again after a crash, they are given in_flight(): each request continues after its
// tokens.
//
// A request may be the cause of a crash. So the journal counts for each request how many jobs have been lost with it in
// a row, since its last token.
//
// All calls come from one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "core/request.h"

namespace foe {

inline constexpr int kSuspectLosses = 2;  // a request with so many losses is a suspect

class Journal {
 public:
  explicit Journal(std::size_t capacity) : capacity_(capacity) {}

  std::size_t size() const { return entries_.size(); }
  std::size_t room() const { return capacity_ - entries_.size(); }

  // Enters a request and returns it with an id of its own, which replaces the one that it had. Requires room().
  const Request& add(Request request);
  // Appends one token to its request, and erases the request if the token is its last, or if it is of one with pooling.
  // Returns false, and does nothing, for an id that is not here: tokens of an aborted request may still be on their
  // way. Throws Error for a token beyond the request's max_tokens.
  bool record(const TokenEvent& event);
  void erase(std::int64_t id) { entries_.erase(id); }

  // Returns all requests in the order in which they were accepted.
  std::vector<Request> in_flight() const;
  const Request* find(std::int64_t id) const;  // null if it is not here

  // Counts a job that was lost with this request, which must be here. Returns the request's losses.
  int count_loss(std::int64_t id);
  // Returns the suspect that has to run alone next, or null if there is none. Of those with the fewest losses it is the
  // oldest; so if the ranks crash again and again for another reason, each time another suspect is with them.
  const Request* suspect() const;

 private:
  struct Entry {
    Request request;
    int losses = 0;
  };

  std::size_t capacity_;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, Entry> entries_;
};

}  // namespace foe
