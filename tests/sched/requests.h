// Requests for tests of the scheduler, and steps whose tokens do not matter.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "core/request.h"
#include "sched/scheduler.h"

namespace foe {

// Returns a request with the tokens id * 1000, id * 1000 + 1, ..., which show to which request they belong.
inline Request request(std::int64_t id, int prompt, int max_tokens, int priority = 0) {
  Request r;
  r.id = id;
  std::vector<std::int32_t> tokens(prompt);
  std::iota(tokens.begin(), tokens.end(), static_cast<std::int32_t>(1000 * id));
  r.prompt = std::move(tokens);
  r.max_tokens = max_tokens;
  r.priority = priority;
  return r;
}

inline std::int64_t request_of(const Batch& batch, int sequence) {
  return batch.tokens[batch.sequence_begin[sequence]] / 1000;
}

// Returns the token after the row: that of the prompt or, for output, the next one of the request's own tokens.
inline std::int32_t token_behind(const SampledRow& row) {
  if (row.of_prompt()) return row.request->prompt[row.position() + 1];
  return static_cast<std::int32_t>(1000 * row.request->id + 999);
}

inline std::vector<TokenEvent> commit(Scheduler& scheduler, const std::vector<SampledRow>& rows) {
  std::vector<SampledToken> tokens;
  for (const SampledRow& row : rows) tokens.push_back({token_behind(row)});
  std::vector<TokenEvent> events = scheduler.commit(tokens);
  scheduler.check();
  return events;
}

// Runs a step, and returns the number of tokens of each request in it.
inline std::map<std::int64_t, int> step(Scheduler& scheduler, std::vector<TokenEvent>* events = nullptr) {
  const auto [batch, rows, ids] = scheduler.next();
  scheduler.check();
  std::map<std::int64_t, int> counts;
  for (int q = 0; q < batch.num_sequences(); ++q)
    counts[request_of(batch, q)] = batch.sequence_begin[q + 1] - batch.sequence_begin[q];
  std::vector<TokenEvent> all = commit(scheduler, rows);
  if (events) events->insert(events->end(), all.begin(), all.end());
  return counts;
}

// Runs steps until all requests have ended, and returns all events.
inline std::vector<TokenEvent> drain(Scheduler& scheduler) {
  std::vector<TokenEvent> events;
  while (!scheduler.idle()) step(scheduler, &events);
  return events;
}

}  // namespace foe
