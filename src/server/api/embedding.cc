#include "server/api/embedding.h"

#include <bit>
#include <cmath>
#include <iterator>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "server/http/api_error.h"
#include "text/base64.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "numbers in base64 begin with the lowest byte");

void append_numbers(std::string& out, const std::vector<float>& numbers) {
  out += '[';
  // As doubles: a reader gets the very numbers, not those nearest to some decimals.
  for (const float x : numbers) fmt::format_to(std::back_inserter(out), "{},", static_cast<double>(x));
  out.back() = ']';
}

void append_base64(std::string& out, const std::vector<float>& numbers) {
  out += '"';
  out += encode_base64({reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)});
  out += '"';
}

// Takes the states, so that the memory of each is free once it is written.
std::string body_of(const AnswerHeader& header, std::vector<std::vector<float>>& states, bool base64,
                    std::int64_t prompt_tokens, std::int64_t cached_tokens) {
  const auto text = [](const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); };
  std::string out = fmt::format("{{\"id\":{},\"object\":\"list\",\"created\":{},\"model\":{},\"data\":[",
                                text(header.id), header.created, text(header.model));
  for (std::size_t i = 0; i < states.size(); ++i) {
    out += fmt::format("{}{{\"object\":\"embedding\",\"index\":{},\"embedding\":", i > 0 ? "," : "", i);
    (base64 ? append_base64 : append_numbers)(out, states[i]);
    out += '}';
    std::vector<float>().swap(states[i]);
  }
  const json usage{{"prompt_tokens", prompt_tokens},
                   {"total_tokens", prompt_tokens},
                   {"completion_tokens", 0},
                   {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
  return out + "],\"usage\":" + usage.dump() + "}";
}

}  // namespace

void normalise(std::span<float> x) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double length = std::sqrt(squares);
  if (length == 0) return;
  for (float& v : x) v = static_cast<float>(v / length);
}

Embedding::Embedding(AnswerHeader header, EmbeddingRequest request, int hidden_size, std::shared_ptr<HttpReply> reply,
                     Metrics& metrics, WorkPool* work_pool)
    : header_(std::move(header)),
      request_(std::move(request)),
      hidden_size_(hidden_size),
      reply_(std::move(reply)),
      metrics_(metrics),
      work_pool_(work_pool),
      states_(request_.inputs.size()),
      unfinished_(request_.inputs.size()) {
  metrics_.accepted(1);
}

bool Embedding::take(std::size_t input, const TokenEvent& event) {
  FOE_CHECK(!ended_ && states_[input].empty(), "a state for input {} of {} after its end", input, header_.id);
  if (event.state.size() != static_cast<std::size_t>(hidden_size_))
    foe::fail("expected a state of {} numbers from the ranks, got {}", hidden_size_, event.state.size());
  states_[input] = event.state;
  if (request_.normalised) normalise(states_[input]);
  cached_tokens_ += event.cached_tokens;
  metrics_.embedded(seconds_since(start_), event.queue_s, event.prefill_s,
                    static_cast<int>(request_.inputs[input].size()), event.cached_tokens);
  if (--unfinished_ == 0) {
    end_with("done");
    send();
  }
  return true;
}

void Embedding::send() {
  const auto states = std::make_shared<std::vector<std::vector<float>>>(std::move(states_));
  const auto body = std::make_shared<std::string>();
  const auto make = [states, body, header = header_, base64 = request_.base64, tokens = prompt_tokens(),
                     cached = cached_tokens_] { *body = body_of(header, *states, base64, tokens, cached); };
  const auto done = [body, reply = reply_](const std::exception_ptr& error) {
    if (error) return send_error(*reply, 500, "out of memory for this reply; ask for fewer inputs");
    reply->send({.body = std::move(*body)});
  };
  const std::size_t bytes = reply_bytes(request_, hidden_size_);
  if (work_pool_ && bytes > WorkPool::kLongBytes) {
    work_pool_->run(bytes, make, done);
    return;
  }
  make();
  done(nullptr);
}

void Embedding::end_with(const std::string& status) {
  ended_ = true;
  status_ = status;
  end_ = Clock::now();
}

void Embedding::fail(int status, const std::string& message) {
  end_with(fmt::format("error {}: {:?}", status, shorten(message, kMaxMessageBytes)));
  metrics_.failed(status, unfinished_);
  send_error(*reply_, status, message);
}

void Embedding::client_left() {
  end_with("client left");
  metrics_.failed(499, unfinished_);
}

std::int64_t Embedding::prompt_tokens() const {
  std::int64_t tokens = 0;
  for (const Prompt& input : request_.inputs) tokens += static_cast<std::int64_t>(input.size());
  return tokens;
}

std::string Embedding::summary() const {
  return fmt::format("{} {}, {} inputs, {} tokens, {} of them cached, all {:.0f} ms", header_.id, status_,
                     request_.inputs.size(), prompt_tokens(), cached_tokens_,
                     std::chrono::duration<double, std::milli>(end_ - start_).count());
}

}  // namespace foe
