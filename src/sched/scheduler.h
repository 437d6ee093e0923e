// Which tokens run in the next step. No prefill phase and no decode phase: every sequence has tokens that have not run
// yet, one while it decodes, many while its prompt is new, and all catch up under one token budget in one batch.
//
// No floats, no MPI, no clock; one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/request.h"
#include "sched/block_allocator.h"

namespace foe {

struct SchedulerLimits {
  int kv_blocks = 0;       // of kKvBlock positions each, in each owner's cache
  int max_tokens = 512;    // per step
  int max_sequences = 32;  // in one batch
  int max_sampled = 32;   // rows of logits per step, at least one for each sequence: prompts whose rows are all sampled
                          // come in chunks of no more
  int max_positions = 0;  // the model's context length
  int owners = 1;         // KV caches; a sequence stays in one of them, its owner's (core/batch.h)
};

// What was chosen for a sampled row; for a token of the prompt, the token itself.
struct SampledToken {
  std::int32_t token = 0;
  std::optional<LogprobEntry> logprobs = {};
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Queues a request. Throws Error for one that could never run: no prompt, or more positions than the context or a
  // whole cache has.
  void add(Request request);
  // Forgets a request; its blocks are free for the next step. Unknown ids are ignored: it may just have finished.
  void abort(std::int64_t id);

  bool idle() const { return running_.empty() && waiting_.empty(); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }

  // The next step's batch, valid until the next call; empty only when idle. First come, first served: a waiting request
  // joins when some owner has blocks for all it may become. Decoding sequences get their token before prompts get
  // chunks; within an owner's part they stand before them.
  const Batch& next();

  // What was sampled for the rows of that batch, in the order of Batch::sampled_rows. Entries of a prompt are collected
  // until its first output token.
  std::vector<TokenEvent> commit(std::span<const SampledToken> tokens);

  // The request whose row `i` of the sampled rows is. Its logits say what comes at index position + 1 of its prompt and
  // output: a token of the prompt, of which only the logprob is wanted, while that is in the prompt, else the output
  // token that is to be chosen.
  struct SampledRow {
    const Request* request;
    int position;
  };
  SampledRow sampled(int i) const;

 private:
  struct Sequence {
    Request request;
    int owner;
    std::vector<std::int32_t> blocks;
    int done = 0;                                    // positions whose KV is computed
    int scheduled = 0;                               // tokens of it in the current batch
    std::vector<LogprobEntry> prompt_logprobs = {};  // of those that have run

    int total() const { return static_cast<int>(request.prompt.size() + request.output.size()); }
    int remaining() const { return total() - done; }
    bool decoding() const { return remaining() == 1; }
    bool samples_all() const { return request.sampling.prompt_logprobs >= 0 && request.output.empty(); }
  };

  int blocks_for(const Request& request) const;
  void admit();
  void deal_tokens(const std::vector<Sequence*>& order);
  void append(Sequence& sequence);

  SchedulerLimits limits_;
  std::vector<BlockAllocator> allocators_;  // by owner
  std::deque<Request> waiting_;
  std::deque<Sequence> running_;  // in order of arrival
  Batch batch_;
  struct Sampled {
    Sequence* sequence;
    int position;
  };
  std::vector<Sampled> sampled_;  // by row of batch_.sampled_rows
};

}  // namespace foe
