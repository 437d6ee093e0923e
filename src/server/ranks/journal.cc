#include "server/ranks/journal.h"

#include "base/check.h"
#include "base/error.h"

namespace foe {

const Request& Journal::add(Request request) {
  FOE_CHECK(room() > 0, "a journal of {} requests is full", capacity_);
  request.id = next_id_++;
  Request& added = entries_[request.id].request;
  return added = std::move(request);
}

bool Journal::record(const TokenEvent& event) {
  const auto found = entries_.find(event.id);
  if (found == entries_.end()) return false;
  auto& [request, losses] = found->second;
  if (request.pools()) {
    if (!event.finish) fail("request {}: expected one state from the ranks, got a token", event.id);
    entries_.erase(found);
    return true;
  }
  if (static_cast<int>(request.output.size()) >= request.max_tokens)
    fail("request {}: expected at most {} tokens from the ranks, got more", event.id, request.max_tokens);
  request.output.push_back(event.token);
  losses = 0;
  request.sampling.prompt_logprobs = -1;  // they come with the first token
  if (event.finish) entries_.erase(found);
  return true;
}

std::vector<Request> Journal::in_flight() const {
  std::vector<Request> all;
  for (const auto& [id, entry] : entries_) all.push_back(entry.request);
  return all;
}

const Request* Journal::find(std::int64_t id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : &found->second.request;
}

int Journal::count_loss(std::int64_t id) {
  return ++entries_.at(id).losses;
}

const Request* Journal::suspect() const {
  const Entry* best = nullptr;
  for (const auto& [id, entry] : entries_)
    if (entry.losses >= kSuspectLosses && (!best || entry.losses < best->losses)) best = &entry;
  return best ? &best->request : nullptr;
}

}  // namespace foe
