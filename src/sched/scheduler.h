// Which tokens run in the next step. No prefill phase and no decode phase: every sequence has tokens that have not run
// yet, one while it decodes, many while its prompt is new, and all catch up under one token budget in one batch.
//
// All requests stand in one order: by priority, then by arrival, where waiting makes up for priority. It decides who is
// admitted, who gets tokens, and who loses its KV blocks when they run out: the last one, which goes back to waiting
// and later runs again what is no longer in the cache. So the first one gets on in every step, and everything ends.
//
// No floats, no MPI, no clock; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/batch.h"
#include "core/request.h"
#include "sched/block_pool.h"
#include "sched/sequence.h"
#include "sched/stats.h"

namespace foe {

#ifdef FOE_DEBUG_CHECKS
inline constexpr bool kDebugChecks = true;
#else
inline constexpr bool kDebugChecks = false;
#endif

struct SchedulerLimits {
  int kv_blocks = 0;                    // of kKvBlock positions each, in each owner's cache
  int max_tokens = 512;                 // per step
  int max_sequences = 32;               // in one batch
  int max_sampled = 0;                  // rows of logits per step; 0: one per sequence
  int max_positions = 0;                // the model's context length
  int owners = 1;                       // KV caches; a sequence runs in one of them, its owner's (core/batch.h)
  bool prefix_caching = true;           // KV of what was run before is used again where prompts begin alike
  int aging_steps = 256;                // a request that has waited so long counts as one priority higher
  bool check_each_step = kDebugChecks;  // Scheduler::check after each next() and commit()
};

// Priorities outside of [-kMaxPriority, kMaxPriority] count as these: whatever others ask for, waiting has an end.
inline constexpr int kMaxPriority = 100;

struct SampledToken {
  std::int32_t token = 0;
  std::optional<LogprobEntry> logprobs = {};
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Queues a request. Throws Error for one that could never run (no prompt, or more positions than the context or a
  // whole cache has) and for an id that is here already.
  void add(Request request);
  // Forgets a request; its blocks are free for the next step. Between next() and commit() its rows stay in the batch,
  // but give no events. Unknown ids are ignored: it may just have finished.
  void abort(std::int64_t id);

  bool contains(std::int64_t id) const { return sequences_.contains(id); }
  bool idle() const { return sequences_.empty(); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  SchedulerStats stats() const;
  // True if the next batch has no more than one token of each running sequence.
  bool decoding() const;

  // The next step's batch, valid until the next call; empty only when idle. Decoding sequences get their token before
  // prompts get chunks, but leave prompts a quarter of the budget.
  const Batch& next();

  // The row's logits say what comes at index position + 1 of prompt + output: a token of the prompt (only its logprob
  // is wanted) while position + 1 < prompt.size(), else output token position + 1 - prompt.size(), which is to be
  // chosen.
  struct SampledRow {
    const Request* request;
    int position;
  };
  // Requests that were admitted for the first time in the last next().
  std::span<const std::int64_t> started() const { return started_; }

  // Row i of the batch's sampled rows, valid until commit().
  SampledRow sampled(int i) const { return {&rows_[i].sequence->request, rows_[i].position}; }

  // One for each of the sampled rows, in their order; for a row of a prompt the prompt's own token. Returns the output
  // tokens in the same order.
  std::vector<TokenEvent> commit(std::span<const SampledToken> tokens);

  // Aborts unless all that is kept here agrees: blocks and their users, sequences and their order, the cache's index.
  void check() const;

 private:
  struct RanksBefore {
    bool operator()(const Sequence* a, const Sequence* b) const { return ranks_before(*a, *b); }
  };
  struct Row {
    Sequence* sequence;
    int position;
  };
  // Where a waiting request would run.
  struct Place {
    int owner;
    std::vector<std::int32_t> hits;  // blocks of the cache that begin it
    int coming;                      // tokens behind these that a running sequence is about to compute
  };
  // What the running sequences of an owner still ask for.
  struct Load {
    std::int64_t tokens = 0;
    int blocks = 0;
  };
  struct Budget {
    int tokens, rows;
  };

  void drop_plan();
  void stop_running(Sequence& sequence);
  void preempt(Sequence& sequence);
  void fill_batch();
  void publish(Sequence& sequence);
  void take(Sequence& sequence, int position, const SampledToken& token, std::vector<TokenEvent>& events);

  // admission.cc
  void admit();
  bool preempt_for(const Sequence& waiting);
  Load load_of(int owner) const;
  std::vector<std::int32_t> find_hits(const Sequence& sequence, int owner) const;
  int find_coming(const Sequence& sequence, int owner, std::span<const std::int32_t> hits) const;
  std::optional<Place> find_place(const Sequence& sequence) const;
  void start(Sequence& sequence, const Place& place);

  // budget.cc
  void deal_tokens();
  int deal(Sequence& sequence, int most);
  bool preempt_behind(const Sequence& sequence);
  int provide_blocks(Sequence& sequence, int end);

  SchedulerLimits limits_;
  std::vector<BlockPool> pools_;                                           // by owner
  std::unordered_map<std::int64_t, std::unique_ptr<Sequence>> sequences_;  // by id
  std::vector<std::int64_t> started_;
  std::set<Sequence*, RanksBefore> waiting_;
  std::vector<Sequence*> running_;  // ordered by ranks_before
  std::int64_t steps_ = 0;
  std::int64_t arrivals_ = 0;
  SchedulerStats stats_;  // what is counted from the start

  // The batch that runs.
  Batch batch_;
  Budget budget_ = {};                            // what is left of the step's
  std::vector<Row> rows_;                         // the sampled ones
  std::vector<std::unique_ptr<Sequence>> ended_;  // aborted since, but rows_ name them
};

}  // namespace foe
