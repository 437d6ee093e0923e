// The step loop: schedule, broadcast, forward, sample, commit.
//
// Rank 0 calls submit() and step(); every other rank calls follow(), which runs what rank 0 broadcasts until it says
// stop. One thread per rank; only it uses the communicator.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "core/request.h"
#include "engine/batch_sampler.h"
#include "grammar/grammar.h"
#include "grammar/token_table.h"
#include "model/forward.h"
#include "sched/scheduler.h"

namespace foe {

struct EngineOptions {
  int threads = 1;
  std::vector<int> pinned = {};  // the processors that threads are bound to, in turn; none: they are not
  int max_batch_tokens = 512;    // per step: a prompt longer than this comes in chunks
  int max_sequences = 32;
  int kv_tokens = 0;  // positions that a KV cache holds, one for each owner of sequences; 0: one sequence of the
                      // model's context length
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;  // kBF16 needs keys and values in bf16
  int max_sampled = 0;  // rows of logits per step, at least one per sequence; 0: no more than that
  ExchangeOptions exchange = {};
  // The communicator's timeout once all ranks are here, as some load for longer than others; 0: as it is. With
  // `warms_up` the start lasts until the end of the first step, in which ranks read what they have mapped.
  double timeout_s = 0;
  bool warms_up = false;
};

// What to tell whoever waits for such a request. Weights are looked at when they are packed at start, so what is left
// is a converted folder that was damaged, or numbers past what f32 holds.
inline constexpr const char* kNotFinite =
    "the model's logits are not finite: its weights and this prompt lead past the largest float, or a converted folder "
    "is damaged (convert the original model again)";

class Engine {
 public:
  // Collective.
  Engine(Model model, Communicator& comm, const EngineOptions& options);

  const Model& model() const { return model_; }
  const Communicator& comm() const { return comm_; }
  int threads() const { return pool_.threads(); }
  KvType kv_type() const { return kv_.shape().type; }
  std::size_t kv_bytes() const { return kv_.bytes(); }
  std::size_t activation_bytes() const { return activations_.bytes(); }

  // Rank 0: what the output of requests with a constraint is spelled in. Without it they are refused.
  void allow_constraints(std::shared_ptr<const TokenTable> tokens) { sampler_.allow_constraints(std::move(tokens)); }
  // Called between parts of a step that may take long, on the thread of step(). May call heartbeat().
  void when_slow(std::function<void()> tell) { sampler_.when_slow(std::move(tell)); }
  // Rank 0. Throws Error for a request that can never run. `grammar` is that of its constraint; without it, it is
  // compiled here.
  void submit(Request request, std::shared_ptr<const Grammar> grammar = nullptr);
  void abort(std::int64_t id);
  bool idle() const { return scheduler_.idle(); }
  const Scheduler& scheduler() const { return scheduler_; }
  // Runs one step, if there is work.
  std::vector<TokenEvent> step();
  // Requests that the last step has ended, without an event, because their logits were not finite: see kNotFinite.
  const std::vector<std::int64_t>& failed() const { return failed_; }
  // What the last step ran.
  const Batch& batch() const { return batch_; }
  // Runs one batch on all ranks and returns the logits [S, V] of its sampled rows, all of which it must want whole;
  // valid until the next call.
  std::span<const float> run(const Batch& batch);
  // Tells the other ranks that this one is alive, while there is no work: they give up after the communicator's
  // timeout.
  void heartbeat();
  // What each rank has sent so far, by rank. The exchange that collects this does not count.
  std::vector<CommCounters> collect_counters();
  // What each rank's experts have run so far, by rank. This exchange does not count either.
  std::vector<ExpertLoad> collect_load();
  // Ends follow() on the other ranks.
  void stop();

  // Every other rank.
  void follow();

 private:
  Model model_;
  Communicator& comm_;
  RankGrid grid_;
  ThreadPool pool_;
  KvCache kv_;
  Activations activations_;
  Scheduler scheduler_;
  BatchSampler sampler_;
  std::vector<std::int64_t> failed_;  // by the last step
  Batch batch_;                       // of the current step, or the last one
  std::vector<std::int32_t> message_;

  double timeout_s_;  // from the end of the start on; 0: it has ended

  int owners() const { return model_.placement.members; }
  Logits run_here(const Batch& batch);
  void end_start();
  Logits run_on_all_ranks(const Batch& batch);
  std::vector<CommCounters> gather_counters(const CommCounters& mine);
};

}  // namespace foe
