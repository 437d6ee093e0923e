#include "server/completion.h"

#include <fmt/core.h>

#include "base/check.h"
#include "server/api_error.h"

namespace foe {

Completion::Completion(CompletionHeader header, CompletionRequest request, const Tokenizer& tokenizer,
                       std::shared_ptr<HttpReply> reply)
    : header_(std::move(header)),
      request_(std::move(request)),
      reply_(std::move(reply)),
      unfinished_(request_.prompts.size()) {
  for (std::size_t i = 0; i < request_.prompts.size(); ++i)
    choices_.push_back({StreamDecoder(tokenizer, request_.skip_special_tokens), StopStrings(request_.stop), "", 0, {}});
  if (request_.stream) reply_->begin_stream("text/event-stream");
}

bool Completion::take(int index, const TokenEvent& event) {
  Choice& choice = choices_[index];
  FOE_CHECK(!ended_ && !choice.finish, "a token for choice {} of {} after its end", index, header_.id);
  if (!first_token_) first_token_ = Clock::now();
  ++choice.tokens;
  // A token that ends the output is no text.
  std::string piece = event.finish == FinishReason::kStop ? "" : choice.decoder.push(event.token);
  if (event.finish) piece += choice.decoder.finish();
  std::string text = choice.stop.push(piece);
  if (event.finish) text += choice.stop.finish();
  choice.finish = choice.stop.stopped() ? FinishReason::kStop : event.finish;

  if (!request_.stream)
    choice.text += text;
  else if (!text.empty() || choice.finish)
    reply_->write(completion_chunk(header_, {index, text, choice.finish}, request_.include_usage));
  if (!choice.finish) return false;
  if (--unfinished_ == 0) end(to_string(*choice.finish));
  return true;
}

void Completion::end(const std::string& status) {
  ended_ = true;
  status_ = status;
  end_ = Clock::now();
  if (request_.stream) {
    if (request_.include_usage) reply_->write(usage_chunk(header_, usage()));
    reply_->write(done_chunk());
    return reply_->end();
  }
  std::vector<CompletionText> texts;
  for (std::size_t i = 0; i < choices_.size(); ++i)
    texts.push_back({static_cast<int>(i), std::move(choices_[i].text), choices_[i].finish});
  reply_->send({.body = completion_body(header_, texts, usage())});
}

void Completion::fail(int status, const std::string& message) {
  ended_ = true;
  status_ = fmt::format("error {}: {}", status, message);
  end_ = Clock::now();
  if (!request_.stream)
    return reply_->send(
        {.status = status, .body = error_body(status, message), .headers = status == 503 ? "Retry-After: 1\r\n" : ""});
  reply_->write(error_chunk(status, message));
  reply_->write(done_chunk());
  reply_->end();
}

void Completion::client_left() {
  ended_ = true;
  status_ = "client left";
  end_ = Clock::now();
}

CompletionUsage Completion::usage() const {
  CompletionUsage usage;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    usage.prompt_tokens += static_cast<std::int64_t>(request_.prompts[i].size());
    usage.completion_tokens += choices_[i].tokens;
  }
  return usage;
}

std::string Completion::summary() const {
  const auto ms = [&](const std::optional<Clock::time_point>& time) {
    return time ? fmt::format("{:.0f} ms", std::chrono::duration<double, std::milli>(*time - start_).count()) : "-";
  };
  const CompletionUsage tokens = usage();
  return fmt::format("{} {}, {} prompt tokens, {} output tokens, first token {}, all {}", header_.id, status_,
                     tokens.prompt_tokens, tokens.completion_tokens, ms(first_token_), ms(end_));
}

}  // namespace foe
