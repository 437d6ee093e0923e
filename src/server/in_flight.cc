#include "server/in_flight.h"

#include <algorithm>
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

}  // namespace

void InFlight::accept(const std::shared_ptr<Answer>& answer, std::vector<Request> requests, double seconds) {
  const auto now = Clock::now();
  const double most = seconds > 0 && most_seconds_ > 0 ? std::min(seconds, most_seconds_) : seconds + most_seconds_;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& accepted = journal_.add(std::move(requests[i]));
    places_[accepted.id] = {answer, i, now, most};
    ranks_.submit(accepted);
  }
}

void InFlight::take(const std::vector<TokenEvent>& events) {
  for (const TokenEvent& event : events) {
    if (!journal_.record(event)) continue;
    const Place place = places_.at(event.id);
    try {
      if (!place.answer->take(place.choice, event)) continue;
    } catch (const std::exception& error) {
      fail(event.id, 500, error.what());
      continue;
    }
    places_.erase(event.id);
    if (!event.finish) forget(event.id);  // a stop string, which the ranks know nothing of
    if (place.answer->ended()) log(*place.answer);
  }
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

void InFlight::resubmit() {
  for (const Request& request : journal_.in_flight()) ranks_.submit(request);
}

void InFlight::forget(std::int64_t id) {
  ranks_.abort(id);
  journal_.erase(id);
  places_.erase(id);
}

// All choices of it.
void InFlight::forget(const std::shared_ptr<Answer>& answer) {
  std::vector<std::int64_t> ids;
  for (const auto& [id, place] : places_)
    if (place.answer == answer) ids.push_back(id);
  for (const std::int64_t id : ids) forget(id);
  log(*answer);
}

}  // namespace foe
