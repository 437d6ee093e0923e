// Sampling of a step's batch, on rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "engine/sampler.h"
#include "grammar/grammar.h"
#include "model/token_head.h"
#include "sched/scheduler.h"

namespace foe {

// Says of each sampled row of the scheduler's batch how many candidates it needs.
void want_candidates(const Scheduler& scheduler, Batch& batch);

class BatchSampler {
 public:
  // Rows are sampled by all threads of the pool.
  BatchSampler(int vocab_size, ThreadPool& pool);
  // What the output of requests with a constraint is spelled in.
  void allow_constraints(std::shared_ptr<const TokenTable> tokens) { tokens_ = std::move(tokens); }

  // Called between the masks of a batch: each may take long, for a schema with many alternatives.
  void when_slow(std::function<void()> tell) { tell_ = std::move(tell); }

  // To be called before a request with a constraint comes, whose grammar this is; null: it is compiled here. Throws
  // Error for one that cannot be kept: a schema that is none, no stop id to end the output with, no bytes to spell it
  // in.
  void admit(const Request& request, std::shared_ptr<const Grammar> grammar = nullptr);

  // What stands at the sampled rows of the scheduler's batch: chosen tokens, or the prompt's own. The logits are those
  // that the batch wants.
  std::vector<SampledToken> sample(const Scheduler& scheduler, const Batch& batch, const Logits& logits);
  // Requests whose logits were not finite in the last call: what was chosen for them means nothing.
  const std::set<std::int64_t>& not_finite() const { return not_finite_; }
  // Drops what is kept of a request.
  void forget(std::int64_t id) {
    counts_.erase(id);
    constraints_.erase(id);
  }

 private:
  // Where a request's output stands in its grammar.
  struct Constrained {
    GrammarMatcher matcher;
    std::size_t accepted = 0;  // tokens of the output
  };

  std::span<const std::uint64_t> allowed(const Request& request, std::span<std::uint64_t> mask);

  ThreadPool& pool_;
  std::function<void()> tell_ = [] {};
  std::shared_ptr<const TokenTable> tokens_;
  std::vector<Sampler> samplers_;                         // one for each thread
  std::unordered_map<std::int64_t, TokenCounts> counts_;  // of requests with penalties, by id: they follow from tokens
  std::unordered_map<std::int64_t, Constrained> constraints_;  // of requests with one, by id
  std::set<std::int64_t> not_finite_;
  std::vector<std::uint64_t> masks_;  // of the rows of such requests
};

}  // namespace foe
