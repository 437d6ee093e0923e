#include "server/ranks/in_flight.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/core.h>
#include <spdlog/spdlog.h>

namespace foe {

InFlight::InFlight(std::size_t capacity, double most_seconds, Ranks ranks)
    : most_seconds_(most_seconds), ranks_(std::move(ranks)), journal_(capacity) {}

namespace {

void log(const Answer& answer) {
  if (const std::string summary = answer.summary(); !summary.empty()) spdlog::info(summary);
}

// One with pooling has none.
Request for_one_token(Request request) {
  if (request.pools()) return request;
  request.max_tokens = static_cast<int>(request.output.size()) + 1;
  request.sampling.min_tokens = std::min(request.sampling.min_tokens, request.max_tokens);
  return request;
}

}  // namespace

std::size_t InFlight::answers() const {
  std::set<const Answer*> all;
  for (const auto& [id, place] : places_) all.insert(place.answer.get());
  return all.size();
}

void InFlight::accept(const std::shared_ptr<Answer>& answer, std::vector<Request> requests, double seconds,
                      std::size_t at_once) {
  const double most = seconds > 0 && most_seconds_ > 0 ? std::min(seconds, most_seconds_) : seconds + most_seconds_;
  Rest rest{std::move(requests), 0, {answer, 0, Clock::now(), most}};
  while (rest.next < std::min(at_once, rest.requests.size())) enter_next(rest);
  if (rest.next < rest.requests.size()) rests_.emplace(answer.get(), std::move(rest));
}

void InFlight::enter_next(Rest& rest) {
  const Request& accepted = journal_.add(std::move(rest.requests[rest.next]));
  rest.place.choice = rest.next++;
  places_[accepted.id] = rest.place;
  if (open_) ranks_.submit(accepted);
}

// To be called when a request of the answer has ended.
void InFlight::enter_next_of(const Answer* answer) {
  const auto rest = rests_.find(answer);
  if (rest == rests_.end()) return;
  enter_next(rest->second);
  if (rest->second.next == rest->second.requests.size()) rests_.erase(rest);
}

void InFlight::take(const std::vector<TokenEvent>& events) {
  for (const TokenEvent& event : events) {
    if (event.id != alone_) {
      take(event);
      continue;
    }
    take(of_the_whole(event));
    if (event.id == alone_) admit();
  }
}

// A suspect is submitted for one token only. That its output ends there is not the end of the request, unless the
// request has no more tokens to get.
TokenEvent InFlight::of_the_whole(TokenEvent event) const {
  const Request* request = journal_.find(event.id);
  if (request && event.finish == FinishReason::kLength &&
      static_cast<int>(request->output.size()) + 1 < request->max_tokens)
    event.finish.reset();
  return event;
}

void InFlight::take(const TokenEvent& event) {
  if (!journal_.record(event)) return;
  const Place place = places_.at(event.id);
  try {
    if (!place.answer->take(place.choice, event)) return;
  } catch (const std::exception& error) {
    return fail(event.id, 500, error.what());
  }
  places_.erase(event.id);
  if (!event.finish) forget(event.id);  // it ended at a stop string, of which the ranks know nothing
  enter_next_of(place.answer.get());
  if (place.answer->ended()) log(*place.answer);
}

void InFlight::client_left(const std::shared_ptr<Answer>& answer) {
  if (answer->ended()) return;
  answer->client_left();
  forget(answer);
}

void InFlight::fail(std::int64_t id, int status, const std::string& message) {
  const auto place = places_.find(id);
  if (place == places_.end()) return;
  const std::shared_ptr<Answer> answer = place->second.answer;
  answer->fail(status, message);
  forget(answer);
}

void InFlight::fail_all(int status, const std::string& message) {
  while (!places_.empty()) fail(places_.begin()->first, status, message);
}

void InFlight::expire() {
  std::vector<std::pair<std::int64_t, double>> late;
  for (const auto& [id, place] : places_)
    if (place.most_seconds > 0 && seconds_since(place.since) > place.most_seconds)
      late.emplace_back(id, place.most_seconds);
  for (const auto& [id, seconds] : late) fail(id, 504, fmt::format("the answer took longer than {} s", seconds));
}

void InFlight::reassure() {
  for (const auto& [id, place] : places_) place.answer->reassure();
}

void InFlight::ranks_up() {
  admit();
}

// Submits the next suspect alone or, if there is none, all requests.
void InFlight::admit() {
  const Request* suspect = journal_.suspect();
  alone_ = suspect ? suspect->id : 0;
  open_ = !suspect;
  if (suspect) return ranks_.submit(for_one_token(*suspect));
  for (const Request& request : journal_.in_flight()) ranks_.submit(request);
}

std::vector<std::int64_t> InFlight::with_the_ranks() const {
  std::vector<std::int64_t> ids;
  for (const Request& request : journal_.in_flight())
    if (open_ || request.id == alone_) ids.push_back(request.id);
  return ids;
}

int InFlight::ranks_lost() {
  const std::vector<std::int64_t> there = with_the_ranks();
  open_ = false;
  alone_ = 0;
  int losses = 0;
  for (const std::int64_t id : there) losses = journal_.count_loss(id);
  if (there.size() != 1 || losses < kFatalLosses) return 0;
  fail(there[0], 500,
       fmt::format("the ranks died {} times in a row before this request got a token, at last while it ran alone",
                   losses));
  return losses;
}

void InFlight::forget(std::int64_t id) {
  ranks_.abort(id);
  journal_.erase(id);
  places_.erase(id);
  if (id == alone_) admit();
}

// Forgets all choices of the answer.
void InFlight::forget(const std::shared_ptr<Answer>& answer) {
  rests_.erase(answer.get());
  std::vector<std::int64_t> ids;
  for (const auto& [id, place] : places_)
    if (place.answer == answer) ids.push_back(id);
  for (const std::int64_t id : ids) forget(id);
  log(*answer);
}

}  // namespace foe
