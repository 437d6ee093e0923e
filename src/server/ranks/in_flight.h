// The answers that wait for tokens, and the journal of what the ranks owe them.
//
// Ranks may die of a request, and would do so again each time it is submitted again. Who was there at several losses
// without getting on is a suspect: the next ranks run suspects first, one at a time and for one token, while all others
// wait. A request that was alone with the ranks when they died, and has been in enough losses, ends with an error.
//
// One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "server/ranks/answer.h"
#include "server/ranks/journal.h"

namespace foe {

// The first kSuspectLosses of them in company. Not fewer: other causes may come several times in a row, too.
inline constexpr int kFatalLosses = 6;

class InFlight {
 public:
  struct Ranks {
    std::function<void(const Request&)> submit;
    std::function<void(std::int64_t id)> abort;
  };
  // An answer may take `most_seconds`, or any time if that is 0.
  InFlight(std::size_t capacity, double most_seconds, Ranks ranks);

  // Choices.
  std::size_t size() const { return journal_.size(); }
  std::size_t room() const { return journal_.room(); }

  // Takes in the requests of an answer, one for each choice, and submits them. There must be room. The answer may take
  // so many seconds, if that is less than any may.
  void accept(const std::shared_ptr<Answer>& answer, std::vector<Request> requests, double seconds = 0);
  // Tokens of what is no longer here are ignored. An answer that cannot use its token ends with an error, alone.
  void take(const std::vector<TokenEvent>& events);
  // Whoever waited for this answer is gone.
  void client_left(const std::shared_ptr<Answer>& answer);
  // Ends the answer that this request belongs to, all answers, or those that have taken too long.
  void fail(std::int64_t id, int status, const std::string& message);
  void fail_all(int status, const std::string& message);
  void expire();
  // To be called about once a second: no stream is silent for long.
  void reassure();
  // The ranks have been started, for the first time or again: each request goes on behind its tokens.
  void ranks_up();
  // The ranks are gone. Returns how many of the last losses, this one included, were due to a request that has ended
  // now.
  int ranks_lost();

 private:
  // A choice of an answer, by the id of its request in the journal.
  struct Place {
    std::shared_ptr<Answer> answer;
    std::size_t choice;
    Clock::time_point since;
    double most_seconds;  // 0: any time
  };

  void admit();
  std::vector<std::int64_t> with_the_ranks() const;
  TokenEvent of_the_whole(TokenEvent event) const;
  void take(const TokenEvent& event);
  void forget(std::int64_t id);
  void forget(const std::shared_ptr<Answer>& answer);

  double most_seconds_;
  Ranks ranks_;
  Journal journal_;
  std::unordered_map<std::int64_t, Place> places_;
  bool open_ = false;       // the ranks are there for all
  std::int64_t alone_ = 0;  // the suspect that has them to itself; 0: none
};

}  // namespace foe
