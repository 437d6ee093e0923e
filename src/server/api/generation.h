// The answer to one request for a text: it takes tokens and writes the reply, as one body or as a stream, in the form
// of the request's endpoint (AnswerWriter).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "server/api/answer_reader.h"
#include "server/api/answer_writer.h"
#include "server/api/receipt.h"
#include "server/api/stop_strings.h"
#include "server/api/work_pool.h"
#include "server/http/api_error.h"
#include "server/http/server.h"
#include "server/metrics/metrics.h"
#include "server/ranks/answer.h"
#include "tokenizer/tokenizer.h"

namespace foe {

class Generation : public Answer {
 public:
  static constexpr double kSilentSeconds = 10;  // proxies close connections that are silent for 30 to 60 s

  // Begins the reply, if it is a stream. `metrics` and `work_pool` must outlive this. Long replies are written in
  // `work_pool`; if it is null, on the calling thread.
  Generation(AnswerHeader header, GenerationRequest request, const Tokenizer& tokenizer,
             std::shared_ptr<HttpReply> reply, Metrics& metrics, WorkPool* work_pool = nullptr);

  // Lets the reply have a receipt. `requests` are engine_requests(). To be called before the first token.
  void give_receipt(const ReceiptModel& model, const std::vector<Request>& requests);
  // Takes the next token of a choice that has not ended. The choice ends with event.finish or at a stop string, and the
  // reply ends with its last choice. Returns whether the choice has ended.
  bool take(std::size_t choice, const TokenEvent& event) override;
  void fail(int status, const std::string& message) override;
  // Writes something to a stream that has been silent for kSilentSeconds.
  void reassure() override;
  void client_left() override;
  bool ended() const override { return ended_; }
  std::string summary() const override;

 private:
  struct Choice {
    StreamDecoder decoder;
    StopStrings stop;
    std::unique_ptr<AnswerReader> reader;  // null: all of the text is content
    ChoicePiece piece;                     // what has not been sent yet
    std::size_t characters = 0;            // characters of the text before the next token
    std::size_t bytes = 0;                 // bytes of it, without a prompt
    std::vector<std::size_t> begins = {};  // where the text of each token begins, in bytes, if reasoning is read
    int tokens = 0;
    int cached_tokens = 0;
    double queue_s = 0;
    Clock::time_point first_token = {}, last_token = {};
  };

  void begin(std::size_t index, const TokenEvent& event);
  bool is_marker(std::int32_t token) const;
  std::string text_of(Choice& choice, const TokenEvent& event);
  void take_text(Choice& choice, const std::string& text, bool last);
  std::optional<std::int64_t> reasoning_tokens(const Choice& choice) const;
  std::size_t most_likely_reported() const { return static_cast<std::size_t>(request_.sampling.logprobs); }
  void report(Choice& choice, std::int32_t token, const std::optional<LogprobEntry>& entry, std::size_t most);
  const ChoicePiece& with_usage(std::size_t index);
  void measure(Choice& choice, const TokenEvent& event);
  void write(std::string_view events);
  void write_piece(std::size_t index);
  void end();
  void send_answer();
  void end_with(const std::string& status);
  AnswerUsage usage() const;
  ErrorForm error_form() const { return header_.api == Api::kMessages ? ErrorForm::kAnthropic : ErrorForm::kOpenAi; }
  const std::vector<std::int32_t>& prompt_of(std::size_t choice) const {
    return request_.prompts[choice / request_.n].tokens();
  }

  AnswerHeader header_;
  GenerationRequest request_;
  Tokenizer tokenizer_;
  std::shared_ptr<HttpReply> reply_;
  std::shared_ptr<AnswerWriter> writer_;
  Metrics& metrics_;
  WorkPool* work_pool_;
  std::vector<std::string_view> markers_;  // the special tokens that answers are read by
  std::vector<Choice> choices_;
  std::optional<Receipt> receipt_;
  std::size_t unfinished_;
  bool ended_ = false;
  std::string status_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point written_ = start_;  // when the last byte of a stream was written
  std::optional<Clock::time_point> first_token_, end_;
};

}  // namespace foe
