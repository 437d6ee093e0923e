// Decides which tokens run in the next step. There is no prefill phase and no decode phase. Every sequence has tokens
// that have not run yet, one while it decodes and many while its prompt is new, and all share the token budget of each
// step (continuous batching with chunked prefill).
//
// All requests stand in one order, by priority and then by arrival, where time spent waiting makes up for priority. The
// order decides who is admitted, who gets tokens, and who is preempted when KV blocks run out. A sequence that is
// preempted loses its blocks, goes back to waiting, and later computes again what is no longer in the cache. The first
// request in the order advances in every step, so every request ends.
//
// With several lanes, as many steps may be under way at once (between next() and commit()): each has the sequences of
// one lane, which have KV blocks of their own. So a sequence's next step comes when the one before it has ended, and
// those of other sequences need not wait for that.
//
// There are no floats, no communication and no clock here. All calls come from one thread.
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
  int kv_blocks = 0;                    // KV blocks in each owner's cache
  int max_tokens = 512;                 // tokens per step
  int max_sequences = 32;               // running sequences
  int max_sampled = 0;                  // rows of logits per step; 0: max_sequences
  int max_positions = 0;                // the model's context length
  int alike_positions = 0;              // the model is told the length of longer prompts (core/model_config.h)
  int max_draft = 0;                    // output tokens of a sequence that are guessed in a step
  int owners = 1;                       // owners of sequences, each with a KV cache (core/batch.h)
  int lanes = 1;                        // steps that may be under way at once, each of sequences of its own
  bool prefix_caching = true;           // use cached blocks again where prompts begin alike
  int aging_steps = 256;                // steps of waiting that make up for one level of priority
  bool check_each_step = kDebugChecks;  // call check() after each next() and commit()
};

// Priorities are clamped to [-kMaxPriority, kMaxPriority], so that waiting has an end whatever other requests ask for.
inline constexpr int kMaxPriority = 100;

// A row whose logits are for the token after `text`. If that is a token of the prompt, only its logprob is wanted.
// Otherwise it is an output token, which has to be chosen. Of a request with pooling the row's state is wanted instead.
struct SampledRow {
  const Request* request;
  // The tokens up to the row's own: of the prompt, the output and, if tokens were guessed, of the guess. Then it is the
  // request's text only if the row before has chosen the last of them.
  std::span<const std::int32_t> text;

  int position() const { return static_cast<int>(text.size()) - 1; }
  bool of_prompt() const { return text.size() < request->prompt.size(); }
  // Whether the row's text is guessed: it goes on from that of `before`, the row before it in the step.
  bool assumes(const SampledRow& before) const { return before.request == request && !before.of_prompt(); }
};

// One step's work, which belongs to the caller of Scheduler::next(). It goes one way: the ranks run the batch, the
// sampler chooses a token for each of the rows, and only these tokens go back to the scheduler.
struct ScheduledStep {
  Batch batch;                          // all of whose rows run through all layers
  std::vector<SampledRow> rows;         // the batch's sampled rows; they refer to the scheduler's tokens until commit()
  std::vector<std::int64_t> sequences;  // the ids of the requests that the batch's sequences belong to
};

struct SampledToken {
  std::int32_t token = 0;
  std::optional<LogprobEntry> logprobs = {};
  std::vector<float> state = {};  // for the last row of a request with pooling: what TokenEvent::state is
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Queues a request. Throws Error for a request that could never run (without a prompt, or with more positions than
  // the context or a whole cache has) and for an id that is here already.
  void add(Request request);
  // Forgets a request and releases its blocks. Between next() and commit() its rows stay in the batch, but give no
  // events. Unknown ids are ignored, because the request may just have finished.
  void abort(std::int64_t id);

  bool contains(std::int64_t id) const { return sequences_.contains(id); }
  bool idle() const { return sequences_.empty(); }
  const SchedulerLimits& limits() const { return limits_; }
  int lanes() const { return limits_.lanes; }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  SchedulerStats stats() const;
  // Whether the next batch has at most one token of each sequence, because none waits and all running ones decode.
  bool decoding() const;

  // Returns the lane's next step, whose batch is empty only if no sequence runs there. Decoding sequences get their
  // token before prompts get chunks, but leave prompts a quarter of the budget. A step of the lane that was not
  // committed is forgotten: its tokens are scheduled again.
  ScheduledStep next(int lane = 0);

  // The requests that the last next() has admitted for the first time.
  std::span<const std::int64_t> started() const { return started_; }

  // Ends the lane's last step with a token for each of its rows, in their order: for a row of a prompt the prompt's own
  // one, and any for a row that assumes another token than the row before has chosen, or of a request with pooling.
  // Returns the output tokens in the same order.
  std::vector<TokenEvent> commit(std::span<const SampledToken> tokens, int lane = 0);

  // Aborts unless all state here is consistent: blocks and their users, sequences and their order, the index of the
  // cache.
  void check() const;

 private:
  struct RanksBefore {
    bool operator()(const Sequence* a, const Sequence* b) const { return served_before(*a, *b); }
  };
  struct Row {
    Sequence* sequence;
    int position;
  };
  // Where a waiting request would run.
  struct Place {
    int owner;
    std::vector<std::int32_t> hits;  // cached blocks with its first tokens
    int coming;                      // tokens after these that a running sequence is about to compute
  };
  // What the running sequences of an owner still need.
  struct Load {
    std::int64_t tokens = 0;
    int blocks = 0;
  };
  struct Budget {
    int tokens, rows;
  };

  // Whether the model computes other keys for it than for shorter prompts.
  bool is_long(const Sequence& s) const {
    return limits_.alike_positions > 0 && s.request.prompt.size() > static_cast<std::size_t>(limits_.alike_positions);
  }
  // Whether its blocks may be those of other sequences. What is routed by a record has keys and values of its own.
  bool shares_blocks(const Sequence& s) const { return limits_.prefix_caching && !s.request.route && !is_long(s); }
  int lane_of(const Sequence& s) const { return s.owner / limits_.owners; }
  void drop_plan(int lane);
  void stop_running(Sequence& sequence);
  void preempt(Sequence& sequence);
  ScheduledStep make_step(int lane);
  void settle_drafts(std::span<const SampledToken> tokens, std::span<const Row> rows);
  void keep_drafted(Sequence& sequence, int accepted);
  void publish(Sequence& sequence);
  void take(Sequence& sequence, int position, const SampledToken& token, std::vector<TokenEvent>& events);
  void take_state(Sequence& sequence, int position, const SampledToken& pooled, std::vector<TokenEvent>& events);
  void retire(Sequence& sequence);

  // admission.cc
  void admit();
  bool preempt_for(const Sequence& waiting);
  Load load_of(int owner) const;
  std::vector<std::int32_t> find_hits(const Sequence& sequence, int owner) const;
  int find_coming(const Sequence& sequence, int owner, std::span<const std::int32_t> hits) const;
  std::optional<Place> find_place(const Sequence& sequence) const;
  void start(Sequence& sequence, const Place& place);

  // budget.cc
  void deal_tokens(int lane);
  int deal(Sequence& sequence, int most);
  bool preempt_behind(const Sequence& sequence);
  int provide_blocks(Sequence& sequence, int end);
  void draft(int lane);
  int room_for_draft(const Sequence& sequence) const;

  SchedulerLimits limits_;
  std::vector<BlockPool> pools_;                                           // by Sequence::owner
  std::unordered_map<std::int64_t, std::unique_ptr<Sequence>> sequences_;  // by id
  std::vector<std::int64_t> started_;
  std::set<Sequence*, RanksBefore> waiting_;
  std::vector<Sequence*> running_;  // ordered by served_before
  std::int64_t steps_ = 0;
  std::int64_t arrivals_ = 0;
  SchedulerStats stats_;  // only what is counted since the start

  Budget budget_ = {};  // what is left of the current step's budget
  // The current batch of a lane.
  struct Lane {
    std::vector<Row> rows;                         // the sampled rows
    std::vector<std::unique_ptr<Sequence>> ended;  // aborted sequences that rows still points to
  };
  std::vector<Lane> lanes_;
};

}  // namespace foe
