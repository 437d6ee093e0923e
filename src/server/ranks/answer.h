// What waits for tokens: the reply to one HTTP request, of one or several choices, each a request to the engine.
#pragma once

#include <cstddef>
#include <string>

#include "core/request.h"

namespace foe {

// One thread.
class Answer {
 public:
  virtual ~Answer() = default;
  // The next token of a choice that has not ended. Returns whether that choice has ended now.
  virtual bool take(std::size_t choice, const TokenEvent& event) = 0;
  // Ends the reply with an error. Not after it has ended.
  virtual void fail(int status, const std::string& message) = 0;
  // Says now and then, if it is a stream, that it is still there: what carries it may close what is silent.
  virtual void reassure() {}
  // Nobody waits for the reply any more.
  virtual void client_left() = 0;
  virtual bool ended() const = 0;
  // For the log: id, how it ended, tokens, times. Empty: it is not logged.
  virtual std::string summary() const = 0;
};

}  // namespace foe
