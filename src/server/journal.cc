#include "server/journal.h"

#include "base/check.h"
#include "base/error.h"

namespace foe {

const Request& Journal::add(Request request) {
  FOE_CHECK(room() > 0, "a journal of {} requests is full", capacity_);
  request.id = next_id_++;
  return requests_[request.id] = std::move(request);
}

bool Journal::record(const TokenEvent& event) {
  const auto found = requests_.find(event.id);
  if (found == requests_.end()) return false;
  Request& request = found->second;
  if (static_cast<int>(request.output.size()) >= request.max_tokens)
    fail("request {}: expected at most {} tokens from the ranks, got more", event.id, request.max_tokens);
  request.output.push_back(event.token);
  request.sampling.prompt_logprobs = -1;  // they come with the first token
  if (event.finish) requests_.erase(found);
  return true;
}

std::vector<Request> Journal::in_flight() const {
  std::vector<Request> all;
  for (const auto& [id, request] : requests_) all.push_back(request);
  return all;
}

}  // namespace foe
