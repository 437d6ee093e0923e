// What was accepted and is not answered yet: the requests, each with the tokens that have come for it. When the ranks
// are restarted, in_flight() is what they are given: each request goes on behind its tokens.
//
// A request may be what the ranks die of. So the journal counts for each the jobs that were lost with it, in a row,
// since its last token.
//
// One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "core/request.h"

namespace foe {

inline constexpr int kSuspectLosses = 2;  // from here on it has to show that it can run alone

class Journal {
 public:
  explicit Journal(std::size_t capacity) : capacity_(capacity) {}

  std::size_t size() const { return entries_.size(); }
  std::size_t room() const { return capacity_ - entries_.size(); }

  // Takes a request in, under a number of its own that becomes its id. There must be room.
  const Request& add(Request request);
  // Notes one more token; the last one ends the entry. False, and nothing happens, for an id that is not here: tokens
  // of an aborted request may still be on their way. Throws Error for a token past the request's limit.
  bool record(const TokenEvent& event);
  void erase(std::int64_t id) { entries_.erase(id); }

  // In the order in which they were accepted.
  std::vector<Request> in_flight() const;
  const Request* find(std::int64_t id) const;  // null: not here

  // A job was lost with this request, which must be here. Returns its count.
  int count_loss(std::int64_t id);
  // The next one that has to run alone, if there is any: of those with the fewest losses the oldest. So ranks that die
  // of something else, over and over, do so with another suspect each time.
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
