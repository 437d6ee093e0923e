// What waits for tokens: the reply to one HTTP request. It has one or several choices, each of which is a request to
// the engine.
#pragma once

#include <cstddef>
#include <string>

#include "core/request.h"

namespace foe {

// All calls come from one thread.
class Answer {
 public:
  virtual ~Answer() = default;
  // Takes the next token of a choice that has not ended. Returns whether the choice has ended with it.
  virtual bool take(std::size_t choice, const TokenEvent& event) = 0;
  // Ends the reply with an error of this HTTP status. Must not be called after it has ended.
  virtual void fail(int status, const std::string& message) = 0;
  // Called about once a second. A stream that has been silent sends something, because proxies may close silent
  // connections.
  virtual void reassure() {}
  // The client is gone, so the reply ends without being sent.
  virtual void client_left() = 0;
  virtual bool ended() const = 0;
  // Returns a line for the log: id, how it ended, tokens, times. If it is empty, nothing is logged.
  virtual std::string summary() const = 0;
};

}  // namespace foe
