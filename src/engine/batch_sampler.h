// Chooses the tokens of a step's batch, on rank 0, and pools the states of requests that want them instead.
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
#include "engine/state_pool.h"
#include "grammar/grammar.h"
#include "model/token_head.h"
#include "sched/scheduler.h"

namespace foe {

// Returns how many candidates each row wants, or kWantsState: what Batch::candidates says.
std::vector<std::int32_t> candidates_wanted(std::span<const SampledRow> rows);

// Used by the thread of the step loop only.
class BatchSampler {
 public:
  // The threads of the pool share the rows of a batch. The pool must outlive this.
  BatchSampler(int vocab_size, ThreadPool& pool);
  // Sets the vocabulary in which the output of requests with a constraint is spelled.
  void allow_constraints(std::shared_ptr<const TokenTable> tokens) { tokens_ = std::move(tokens); }

  // Sets a function that is called before each mask of a batch, as a mask may take long for a schema with many
  // alternatives.
  void when_slow(std::function<void()> tell) { tell_ = std::move(tell); }

  // To be called for each request before it is scheduled. `grammar` is that of its constraint; if it is null, it is
  // compiled here. Throws Error for a constraint that cannot be kept: the schema is not valid, the request has no stop
  // id that could end the output, or there is no vocabulary to spell it in.
  void admit(const Request& request, std::shared_ptr<const Grammar> grammar = nullptr);

  // Returns a token for each row of a step: a chosen one or, for rows of a prompt, the prompt's own; for the last row
  // of a request with pooling, what is pooled. Of a row that assumes another token than the row before has chosen, what
  // is returned means nothing. `logits` are those of a batch that wants candidates_wanted() of these rows.
  std::vector<SampledToken> sample(std::span<const SampledRow> rows, const Logits& logits);
  // The requests whose logits or states were not finite in the last call of sample(). The tokens chosen for them mean
  // nothing.
  const std::set<std::int64_t>& not_finite() const { return not_finite_; }
  // Drops what is kept for a request that has ended.
  void forget(std::int64_t id) {
    counts_.erase(id);
    constraints_.erase(id);
    states_.forget(id);
  }

 private:
  // How far a request's output has come in its reasoning, and behind that in its grammar.
  struct Constrained {
    GrammarMatcher matcher;
    ReasoningMarks marks;
    bool reasons = marks.begun;
    std::size_t accepted = 0;  // how many output tokens have been seen

    void accept(std::int32_t token);
    // Whether the next token may begin the reasoning.
    bool may_begin() const { return accepted == 0 && !reasons && marks.begin >= 0 && marks.end >= 0; }
  };

  // A sampled row with its logits, and how its token is to be chosen.
  struct Row {
    SampledRow at;
    std::span<const float> logits_V;        // all logits; empty if the row has
    std::span<const Candidate> candidates;  // or
    std::span<const float> state_D;
    const TokenCounts* counts = nullptr;       // of a request with penalties
    std::span<const std::uint64_t> allowed{};  // for a request with a constraint
  };

  static std::vector<Row> rows_with(std::span<const SampledRow> sampled, const Logits& logits, std::size_t vocab_size);
  static SampledToken sample_row(Sampler& sampler, const Row& row);
  void prepare(Row& row, std::span<std::uint64_t> mask);
  std::span<const std::uint64_t> allowed(const SampledRow& row, std::span<std::uint64_t> mask);

  ThreadPool& pool_;
  std::function<void()> tell_ = [] {};
  std::shared_ptr<const TokenTable> tokens_;
  std::vector<Sampler> samplers_;                              // one for each thread
  std::unordered_map<std::int64_t, TokenCounts> counts_;       // by id, of requests with penalties
  std::unordered_map<std::int64_t, Constrained> constraints_;  // by id, of requests with a constraint
  StatePool states_;
  std::set<std::int64_t> not_finite_;
  std::vector<std::uint64_t> masks_;  // of all sampled rows
};

}  // namespace foe
