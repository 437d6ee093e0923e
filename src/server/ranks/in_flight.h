// Everything that was accepted and is not answered in full: the answers that wait for tokens, and the journal of their
// requests. When ranks crash and are started again, it submits the requests again, each with the tokens that have come.
//
// A retry must not go on for ever: if a request makes the ranks crash, it would do so again each time it is submitted.
// A request that was with the ranks at kSuspectLosses losses in a row, without a token in between, is a suspect. When
// ranks are up again, they first run suspects, one at a time and for one token each, while all other requests wait. A
// request that was alone with the ranks when they crashed, and has been there at kFatalLosses losses in a row, ends
// with an error.
//
// All calls come from one thread.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "server/ranks/answer.h"
#include "server/ranks/journal.h"

namespace foe {

// The first kSuspectLosses of these may have happened in the company of other requests. The limit is no lower because
// ranks may also be lost several times in a row for other reasons.
inline constexpr int kFatalLosses = 6;

class InFlight {
 public:
  // How to reach the ranks.
  struct Ranks {
    std::function<void(const Request&)> submit;
    std::function<void(std::int64_t id)> abort;
  };
  // `capacity` is how many requests may be in flight at once. An answer may take `most_seconds`; 0 means any time.
  InFlight(std::size_t capacity, double most_seconds, Ranks ranks);

  // How many requests are in flight, and how many more may be. Each choice of an answer is one request.
  std::size_t size() const { return journal_.size(); }
  std::size_t room() const { return journal_.room(); }
  std::size_t answers() const;  // how many answers these belong to

  // Enters the requests of an answer, one for each choice, and submits them to the ranks: no more than `at_once` at a
  // time, the others as those before them end. Requires room() for those. `seconds`, unless it is 0, is a shorter time
  // limit for this answer.
  void accept(const std::shared_ptr<Answer>& answer, std::vector<Request> requests, double seconds = 0,
              std::size_t at_once = std::numeric_limits<std::size_t>::max());
  // Hands tokens from the ranks to their answers. Tokens of requests that are no longer here are ignored. If an answer
  // throws at its token, that answer alone ends with an error.
  void take(const std::vector<TokenEvent>& events);
  // The client that waited for this answer is gone: its requests are aborted.
  void client_left(const std::shared_ptr<Answer>& answer);
  // These end answers with an error: the answer that the request `id` belongs to; all answers; those that have taken
  // too long (with status 504).
  void fail(std::int64_t id, int status, const std::string& message);
  void fail_all(int status, const std::string& message);
  void expire();
  // Lets streams that have been silent send a comment. To be called about once a second.
  void reassure();
  // The ranks have been started, for the first time or again. Submits what is in flight; each request continues after
  // the tokens that it has.
  void ranks_up();
  // The ranks are gone. If a request has been found out as the cause, it ends with an error, and this returns how many
  // of the last losses, this one included, it explains; otherwise 0.
  int ranks_lost();

 private:
  // Which choice of which answer a request is.
  struct Place {
    std::shared_ptr<Answer> answer;
    std::size_t choice;
    Clock::time_point since;
    double most_seconds;  // 0: any time
  };

  // The requests of an answer that are not entered yet: those from `next` on.
  struct Rest {
    std::vector<Request> requests;
    std::size_t next;
    Place place;
  };

  void enter_next(Rest& rest);
  void enter_next_of(const Answer* answer);
  void admit();
  std::vector<std::int64_t> with_the_ranks() const;
  TokenEvent of_the_whole(TokenEvent event) const;
  void take(const TokenEvent& event);
  void forget(std::int64_t id);
  void forget(const std::shared_ptr<Answer>& answer);

  double most_seconds_;
  Ranks ranks_;
  Journal journal_;
  std::unordered_map<std::int64_t, Place> places_;  // by the id of the request in the journal
  std::unordered_map<const Answer*, Rest> rests_;   // of answers with requests in the journal
  bool open_ = false;                               // the ranks are up, and may have all requests
  std::int64_t alone_ = 0;                          // the suspect that runs alone; 0: none
};

}  // namespace foe
