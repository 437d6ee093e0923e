// Requests, and steps of a scheduler whose tokens do not matter, for its tests.
#pragma once

#include <map>
#include <vector>

#include "core/batch.h"
#include "core/request.h"
#include "sched/scheduler.h"

namespace foe {

// Tokens id * 1000, id * 1000 + 1, ...: they name their request.
inline Request request(std::int64_t id, int prompt, int max_tokens, int priority = 0) {
  Request r;
  r.id = id;
  for (int i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<std::int32_t>(1000 * id + i));
  r.max_tokens = max_tokens;
  r.priority = priority;
  return r;
}

inline std::int64_t request_of(const Batch& batch, int sequence) {
  return batch.tokens[batch.sequence_begin[sequence]] / 1000;
}

// The token that stands behind the row, or the next one of those that name the request.
inline std::int32_t token_behind(const SampledRow& row) {
  if (row.of_prompt()) return row.request->prompt[row.position + 1];
  return static_cast<std::int32_t>(1000 * row.request->id + 999);
}

inline std::vector<TokenEvent> commit(Scheduler& scheduler, const std::vector<SampledRow>& rows) {
  std::vector<SampledToken> tokens;
  for (const SampledRow& row : rows) tokens.push_back({token_behind(row)});
  std::vector<TokenEvent> events = scheduler.commit(tokens);
  scheduler.check();
  return events;
}

// The tokens of each request in the next step.
inline std::map<std::int64_t, int> step(Scheduler& scheduler, std::vector<TokenEvent>* events = nullptr) {
  const auto [batch, rows] = scheduler.next();
  scheduler.check();
  std::map<std::int64_t, int> counts;
  for (int q = 0; q < batch.num_sequences(); ++q)
    counts[request_of(batch, q)] = batch.sequence_begin[q + 1] - batch.sequence_begin[q];
  std::vector<TokenEvent> all = commit(scheduler, rows);
  if (events) events->insert(events->end(), all.begin(), all.end());
  return counts;
}

// All events of the requests that are there, in order of steps.
inline std::vector<TokenEvent> drain(Scheduler& scheduler) {
  std::vector<TokenEvent> events;
  while (!scheduler.idle()) step(scheduler, &events);
  return events;
}

}  // namespace foe
