#include "server/api/generation.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/check.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "server/api/harmony.h"
#include "server/api/tool_calls.h"
#include "server/api/tool_syntax.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

std::size_t characters_in(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

bool contains(const std::vector<std::int32_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Returns the names of special tokens that an answer is read by, so that they belong to its text.
std::vector<std::string_view> markers_of(const GenerationRequest& request) {
  std::vector<std::string_view> markers;
  if (request.tools.choice == ToolChoice::kAuto && request.tools.syntax) markers = request.tools.syntax->markers;
  const ReasoningUse& use = request.reasoning;
  if (!use.syntax) return markers;
  for (const auto& texts : {use.syntax->content_begins, use.syntax->content_ends})
    markers.insert(markers.end(), texts.begin(), texts.end());
  if (use.start == ReasoningStart::kNowhere) return markers;
  if (use.syntax->harmony) return harmony_markers();
  markers.insert(markers.end(), {use.syntax->begin, use.syntax->end});
  markers.insert(markers.end(), use.syntax->markers.begin(), use.syntax->markers.end());
  return markers;
}

}  // namespace

Generation::Generation(AnswerHeader header, GenerationRequest request, const Tokenizer& tokenizer,
                       std::shared_ptr<HttpReply> reply, Metrics& metrics, WorkPool* work_pool)
    : header_(std::move(header)),
      request_(std::move(request)),
      tokenizer_(tokenizer),
      reply_(std::move(reply)),
      metrics_(metrics),
      work_pool_(work_pool),
      unfinished_(request_.choices()) {
  header_.tools = request_.tools.choice;
  header_.reasoning = request_.reasoning.syntax && request_.reasoning.include;
  markers_ = markers_of(request_);
  writer_ = make_answer_writer(header_, request_);
  metrics_.accepted(request_.n);
  for (std::size_t i = 0; i < request_.choices(); ++i) {
    choices_.push_back({StreamDecoder(tokenizer, request_.skip_special_tokens),
                        StopStrings(request_.stop, request_.include_stop),
                        make_answer_reader(request_.tools, request_.reasoning),
                        {.index = i, .text = ""}});
    if (request_.sampling.logprobs >= 0) choices_[i].piece.logprobs.emplace();
    if (!request_.return_ids) continue;
    choices_[i].piece.token_ids.emplace();
    choices_[i].piece.prompt_token_ids = &prompt_of(i);
  }
  if (!request_.stream) return;
  reply_->begin_stream("text/event-stream");
  for (std::size_t i = 0; i < choices_.size(); ++i) write(writer_->begin(with_usage(i), usage()));
}

void Generation::give_receipt(const ReceiptModel& model, const std::vector<Request>& requests) {
  std::vector<std::int32_t> markers;
  for (const std::string_view name : markers_)
    if (const auto id = tokenizer_.token_to_id(name); id && is_marker(*id)) markers.push_back(*id);
  receipt_ = begin_receipt(model, request_, requests, std::move(markers));
}

bool Generation::take(std::size_t index, const TokenEvent& event) {
  Choice& choice = choices_[index];
  ChoicePiece& piece = choice.piece;
  FOE_CHECK(!ended_ && !piece.finish, "a token for choice {} of {} after its end", index, header_.id);
  if (!first_token_) first_token_ = Clock::now();
  if (choice.tokens == 0) begin(index, event);
  ++choice.tokens;
  if (request_.max_tokens == 0) {  // the engine has chosen one token, as it always does
    piece.finish = FinishReason::kLength;
  } else {
    // All that was asked for by id is reported, and the token itself.
    const std::size_t named = request_.sampling.logprob_tokens.size();
    if (piece.logprobs) report(choice, event.token, event.logprobs, named > 0 ? named + 1 : most_likely_reported());
    if (piece.token_ids) piece.token_ids->push_back(event.token);
    if (receipt_) receipt_->choices[index].tokens.push_back(event.token);
    const std::string text = text_of(choice, event);
    choice.characters += characters_in(text);
    piece.finish = choice.stop.stopped() ? FinishReason::kStop : event.finish;
    take_text(choice, text, piece.finish.has_value());
    const auto stop_token = request_.stop_tokens.find(event.token);
    if (choice.stop.stopped())
      piece.stopped_by = choice.stop.matched();
    else if (event.finish == FinishReason::kStop && stop_token != request_.stop_tokens.end())
      piece.stopped_by = stop_token->second;
    else if (event.finish == FinishReason::kStop && contains(request_.stop_ids, event.token))
      piece.stopped_by = event.token;
  }
  measure(choice, event);
  const bool finished = piece.finish.has_value();
  if (receipt_ && finished) receipt_->choices[index].finish = *piece.finish;
  if (receipt_ && finished && unfinished_ == 1 && request_.stream) piece.receipt = receipt_text(*receipt_);
  if (!piece.reasoning.empty() || !piece.text.empty() || !piece.calls.empty() || finished) write_piece(index);
  if (finished && --unfinished_ == 0) end();
  return finished;
}

// Gives the writer what has come of a choice, unless the reply is written as a whole.
void Generation::write_piece(std::size_t index) {
  if (!request_.stream && !writer_->collects()) return;
  const std::string events = writer_->piece(with_usage(index));
  if (request_.stream) write(events);
  ChoicePiece& piece = choices_[index].piece;
  piece.reasoning.clear();
  piece.text.clear();
  piece.calls.clear();
  if (piece.logprobs) piece.logprobs->clear();
  if (piece.token_ids) piece.token_ids->clear();
  piece.prompt_token_ids = nullptr;
}

// Takes what the first token of a choice says of the prompt. With echo, the text begins with the prompt.
void Generation::begin(std::size_t index, const TokenEvent& event) {
  Choice& choice = choices_[index];
  choice.cached_tokens = event.cached_tokens;
  const std::vector<std::int32_t>& prompt = prompt_of(index);
  choice.decoder.begin_after(prompt);
  if (request_.sampling.prompt_logprobs >= 0 && event.prompt.size() + 1 != prompt.size())
    foe::fail("expected logprobs of {} prompt tokens from the ranks, got {}", prompt.size() - 1, event.prompt.size());
  if (request_.prompt_logprobs >= 0)
    choice.piece.prompt_logprobs = {&prompt, event.prompt, request_.prompt_logprobs, tokenizer_};
  choice.piece.text = request_.echoed;
  if (!request_.echo) return;
  choice.piece.text = tokenizer_.decode(prompt, request_.skip_special_tokens);
  if (choice.piece.logprobs) {
    StreamDecoder decoder(tokenizer_, request_.skip_special_tokens);
    for (std::size_t i = 0; i < prompt.size(); ++i) {
      report(choice, prompt[i], i == 0 ? std::optional<LogprobEntry>() : event.prompt[i - 1], most_likely_reported());
      choice.characters += characters_in(decoder.push(prompt[i]));
    }
  }
  choice.characters = characters_in(choice.piece.text);
}

// Whether the token is a special one that the answer is read by.
bool Generation::is_marker(std::int32_t token) const {
  return !markers_.empty() && tokenizer_.is_special(token) &&
         std::find(markers_.begin(), markers_.end(), tokenizer_.token_name(token)) != markers_.end();
}

// Returns the text that the token completes, up to a stop string.
std::string Generation::text_of(Choice& choice, const TokenEvent& event) {
  // A stop id is not part of the text, unless the request asks for it.
  const bool is_text = event.finish != FinishReason::kStop || request_.include_stop;
  std::string text = !is_text ? ""
                     : is_marker(event.token)
                         ? choice.decoder.finish() + std::string(tokenizer_.token_name(event.token))
                         : choice.decoder.push(event.token);
  if (event.finish) text += choice.decoder.finish();
  if (request_.reasoning.syntax) choice.begins.push_back(choice.bytes);
  choice.bytes += text.size();
  const auto stop_token = request_.stop_tokens.find(event.token);
  if (event.finish == FinishReason::kStop && request_.include_stop && request_.skip_special_tokens &&
      stop_token != request_.stop_tokens.end())
    text += stop_token->second;
  if (choice.tokens <= request_.sampling.min_tokens) return text;
  text = choice.stop.push(text);
  if (event.finish) text += choice.stop.finish();
  return text;
}

// Adds text to the content of the choice, to its reasoning, or to its calls.
void Generation::take_text(Choice& choice, const std::string& text, bool last) {
  ChoicePiece& piece = choice.piece;
  if (!choice.reader) {
    piece.text += text;
    return;
  }
  const auto add = [&](AnswerPart part) {
    piece.reasoning += part.reasoning;
    piece.text += part.content;
    for (ToolCallPiece& call : part.calls)
      if (!call.name.empty()) call.id = new_call_id(request_.tools.syntax);
    append_calls(piece.calls, std::move(part.calls));
  };
  add(choice.reader->push(text));
  if (!last) return;
  add(choice.reader->finish());
  piece.ends_in_calls = choice.reader->complete();
}

// Returns how many tokens so far are reasoning, with its marks: those whose text begins in it.
std::optional<std::int64_t> Generation::reasoning_tokens(const Choice& choice) const {
  if (!request_.reasoning.syntax) return {};
  std::int64_t tokens = 0;
  if (!choice.reader) return tokens;
  const auto at = [&](std::size_t byte) { return std::ranges::lower_bound(choice.begins, byte); };
  for (const TextSpan& span : choice.reader->reasoning_spans()) tokens += at(span.end) - at(span.begin);
  return tokens;
}

void Generation::report(Choice& choice, std::int32_t token, const std::optional<LogprobEntry>& entry,
                        std::size_t most) {
  const auto name = [&](std::int32_t id) {
    return request_.tokens_as_ids ? fmt::format("token_id:{}", id) : std::string(tokenizer_.token_bytes(id));
  };
  TokenReport report{name(token), {}, {}, choice.characters};
  if (entry) {
    report.logprob = entry->logprob;
    for (const TokenLogprob& top : entry->top) {
      if (report.top.size() == most) break;  // prompt_logprobs may want more
      report.top.emplace_back(name(top.token), top.logprob);
    }
  }
  choice.piece.logprobs->push_back(std::move(report));
}

// Returns the piece of a choice, with the usage so far if chunks have that.
const ChoicePiece& Generation::with_usage(std::size_t index) {
  Choice& choice = choices_[index];
  if (request_.usage_in_chunks)
    choice.piece.usage = {static_cast<std::int64_t>(prompt_of(index).size()),
                          request_.max_tokens > 0 ? choice.tokens : 0, choice.cached_tokens, reasoning_tokens(choice)};
  return choice.piece;
}

void Generation::measure(Choice& choice, const TokenEvent& event) {
  const auto now = Clock::now();
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  const std::vector<std::int32_t>& prompt = prompt_of(choice.piece.index);
  if (choice.tokens == 1) {
    choice.first_token = now;
    choice.queue_s = event.queue_s;
    metrics_.first_token(seconds(now - start_), event.queue_s, event.prefill_s, static_cast<int>(prompt.size()),
                         event.cached_tokens);
  } else {
    metrics_.next_token(seconds(now - choice.last_token));
  }
  choice.last_token = now;
  if (choice.piece.finish)
    metrics_.finished({.first_token = seconds(choice.first_token - start_),
                       .last_token = seconds(now - start_),
                       .queue_s = choice.queue_s,
                       .tokens = choice.tokens,
                       .prompt_tokens = static_cast<int>(prompt.size()),
                       .max_tokens = request_.max_tokens},
                      *choice.piece.finish);
}

void Generation::end_with(const std::string& status) {
  ended_ = true;
  status_ = status;
  end_ = Clock::now();
}

void Generation::end() {
  end_with(to_string(*choices_.back().piece.finish));
  if (request_.stream) {
    write(writer_->end(usage()));
    return reply_->end();
  }
  send_answer();
}

void Generation::write(std::string_view events) {
  if (events.empty()) return;
  written_ = Clock::now();
  reply_->write(events);
}

void Generation::send_answer() {
  struct Parts {
    std::vector<ChoicePiece> pieces;
    std::string body;
  };
  const auto parts = std::make_shared<Parts>();
  for (Choice& choice : choices_) parts->pieces.push_back(std::move(choice.piece));
  // The prompts, which pieces refer to, are those of the request.
  const auto make = [parts, writer = writer_, usage = usage(), prompts = request_.prompts,
                     receipt = std::move(receipt_)] {
    if (receipt) parts->pieces.back().receipt = receipt_text(*receipt);
    parts->body = writer->body(parts->pieces, usage);
    parts->pieces.clear();
  };
  const auto send = [parts, reply = reply_, form = error_form()](const std::exception_ptr& error) {
    if (error)
      return send_error(*reply, 500, "out of memory for this reply; ask for a shorter one, or for fewer choices", "",
                        form);
    reply->send({.body = std::move(parts->body)});
  };
  const std::size_t bytes = reply_bytes(request_);
  if (work_pool_ && bytes > WorkPool::kLongBytes) {
    work_pool_->run(bytes, make, send);
    return;
  }
  make();
  send(nullptr);
}

void Generation::fail(int status, const std::string& message) {
  end_with(fmt::format("error {}: {:?}", status, shorten(message, kMaxMessageBytes)));
  metrics_.failed(status, unfinished_);
  if (!request_.stream) return send_error(*reply_, status, message, "", error_form());
  write(writer_->failure(status, message));
  reply_->end();
}

void Generation::reassure() {
  if (request_.stream && !ended_ && seconds_since(written_) > kSilentSeconds) write(writer_->silence());
}

void Generation::client_left() {
  end_with("client left");
  metrics_.failed(499, unfinished_);
}

AnswerUsage Generation::usage() const {
  AnswerUsage usage;
  for (const auto& prompt : request_.prompts) usage.prompt_tokens += static_cast<std::int64_t>(prompt.size());
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if (request_.max_tokens > 0) usage.completion_tokens += choices_[i].tokens;
    if (i % request_.n == 0) usage.cached_tokens += choices_[i].cached_tokens;
    if (const auto tokens = reasoning_tokens(choices_[i]))
      usage.reasoning_tokens = usage.reasoning_tokens.value_or(0) + *tokens;
  }
  return usage;
}

std::string Generation::summary() const {
  const auto ms = [&](const std::optional<Clock::time_point>& time) {
    return time ? fmt::format("{:.0f} ms", std::chrono::duration<double, std::milli>(*time - start_).count()) : "-";
  };
  const AnswerUsage tokens = usage();
  return fmt::format("{} {}, {} prompt tokens, {} of them cached, {} output tokens, first token {}, all {}", header_.id,
                     status_, tokens.prompt_tokens, tokens.cached_tokens, tokens.completion_tokens, ms(first_token_),
                     ms(end_));
}

}  // namespace foe
