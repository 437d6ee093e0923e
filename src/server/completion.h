// One POST /v1/completions between its request and the end of its reply: tokens in, text out.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "server/completion_request.h"
#include "server/completion_response.h"
#include "server/http_server.h"
#include "server/stop_strings.h"
#include "text/tokenizer.h"

namespace foe {

class Completion {
 public:
  using Clock = std::chrono::steady_clock;

  // Begins the reply, if it is a stream.
  Completion(CompletionHeader header, CompletionRequest request, const Tokenizer& tokenizer,
             std::shared_ptr<HttpReply> reply);

  // The next token of the choice for prompt `index`, which has not ended. Returns whether it has ended now: by
  // event.finish, or by a stop string. The end of the last choice ends the reply.
  bool take(int index, const TokenEvent& event);
  // Ends the reply with an error. Not after it has ended.
  void fail(int status, const std::string& message);
  void client_left();

  bool ended() const { return ended_; }
  bool choice_ended(int index) const { return choices_[index].finish.has_value(); }
  // For the log: id, how it ended, tokens, times.
  std::string summary() const;

 private:
  struct Choice {
    StreamDecoder decoder;
    StopStrings stop;
    std::string text;  // all of it, unless it is streamed
    int tokens = 0;
    std::optional<FinishReason> finish;
  };

  void end(const std::string& status);
  CompletionUsage usage() const;

  CompletionHeader header_;
  CompletionRequest request_;
  std::shared_ptr<HttpReply> reply_;
  std::vector<Choice> choices_;
  std::size_t unfinished_;
  bool ended_ = false;
  std::string status_;
  Clock::time_point start_ = Clock::now();
  std::optional<Clock::time_point> first_token_, end_;
};

}  // namespace foe
