// The step loop. A step schedules a batch, broadcasts it, runs the forward pass, samples tokens, and commits them.
// Where ranks are stages (plan pp), as many steps are under way at once as there are stages, each of sequences of its
// own: a lane of the scheduler (sched/scheduler.h).
//
// Rank 0 calls submit() and step(). Every other rank calls follow(), which runs what rank 0 broadcasts until rank 0
// calls stop(). On each rank one thread makes all calls, and only this thread uses the communicator. Every function
// that communicates throws Error if another rank has died or is silent for too long.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "core/request.h"
#include "engine/batch_sampler.h"
#include "engine/route_recorder.h"
#include "grammar/grammar.h"
#include "grammar/token_table.h"
#include "model/forward.h"
#include "sched/scheduler.h"

namespace foe {

struct EngineOptions {
  int threads = 1;
  std::vector<int> pinned = {};  // the processors that threads are bound to, in turn; empty: threads are not bound
  int max_batch_tokens = 512;    // tokens per step: a longer prompt runs in several chunks
  int max_sequences = 32;
  int kv_tokens = 0;  // positions that the KV cache of each owner holds; 0: the model's context length
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;  // kBF16 requires KvType::kBF16
  int max_sampled = 0;                            // rows of logits per step; at least max_sequences and max_draft + 1
  // Tokens of an output that are guessed in a step and kept if the model chooses the same (sched/draft.h): this changes
  // how long an answer takes, and no token or logprob of it. Not with routes in `record`, which would have wrong
  // guesses.
  int max_draft = 0;
  ExchangeOptions exchange = {};
  RecordOptions record = {};  // with routes, the prefix cache is off: what is in it is not routed
  // The communicator's timeout from the end of the start on, in seconds; 0: the timeout is not changed. The start ends
  // when all ranks have loaded the model. With `warms_up` it lasts until the end of the first step, in which ranks read
  // the files that they have mapped.
  double timeout_s = 0;
  bool warms_up = false;
};

// Returns the limits of the scheduler of an engine with these options.
SchedulerLimits scheduler_limits(const ModelConfig& config, const Placement& placement, const EngineOptions& options);

// The message for a request whose logits are not finite. Weights are checked when they are packed, so the possible
// causes are a damaged converted folder, whose weights are not packed again, and numbers beyond the largest float.
inline constexpr const char* kNotFinite =
    "the model's logits are not finite: its weights and this prompt, or the weights of the route that it was given, "
    "lead past the largest float, or a converted folder is damaged (convert the original model again)";

class Engine {
 public:
  // Collective. `comm` must outlive the engine.
  Engine(Model model, Communicator& comm, const EngineOptions& options);

  const Model& model() const { return model_; }
  const Communicator& comm() const { return comm_; }
  int threads() const { return pool_.threads(); }
  KvType kv_type() const { return kv_.shape().type; }
  std::size_t kv_bytes() const { return kv_.bytes(); }
  std::size_t activation_bytes() const { return activations_.bytes(); }

  // Rank 0. Sets the vocabulary in which the output of requests with a constraint is spelled. Without it such requests
  // are refused.
  void allow_constraints(std::shared_ptr<const TokenTable> tokens) { sampler_.allow_constraints(std::move(tokens)); }
  // Sets a function that step() calls between parts that may take long. It may call heartbeat().
  void when_slow(std::function<void()> tell) { sampler_.when_slow(std::move(tell)); }
  // Rank 0. From now on steps are recorded by this writer, which must outlive the engine or be replaced; null: not any
  // more. Requires EngineOptions::record, and a writer of route_form().
  void record_to(RouteWriter* writer) { recorder_.write_to(writer); }
  const RouteForm& route_form() const { return activations_.record; }
  // Rank 0. Queues a request. `grammar` is that of its constraint; if it is null, it is compiled here. Throws Error for
  // a request that can never run.
  void submit(Request request, std::shared_ptr<const Grammar> grammar = nullptr);
  void abort(std::int64_t id);
  bool idle() const { return scheduler_.idle() && !ended_early_; }
  const Scheduler& scheduler() const { return scheduler_; }
  // Rank 0. Ends one step, if there is work, and returns its output tokens. Before that it begins as many as may be
  // under way. `planned` is called when it is known what will run in one that begins, before anything does.
  std::vector<TokenEvent> step(const std::function<void()>& planned = {});
  // The requests that have been admitted for the first time by what the last step() has begun.
  std::span<const std::int64_t> started() const { return started_; }
  // The requests that the last step has ended, without an event, because their logits were not finite (kNotFinite).
  const std::vector<std::int64_t>& failed() const { return failed_; }
  // The batch of the last step that has ended.
  const Batch& batch() const { return batch_; }
  // Rank 0. Runs one batch on all ranks, without the scheduler, and returns the logits [S, V] of its sampled rows,
  // which are valid until the next call. The batch must want all logits of every row. Throws Error if the model cannot
  // run its route.
  std::span<const float> run(const Batch& batch);
  // How far an output is what the model chooses.
  struct Replayed {
    std::size_t equal = 0;               // how many of its first tokens are
    std::optional<std::int32_t> chosen;  // instead of the next one; none if all are
  };
  // Rank 0. Runs the request's prompt and output, and chooses a token at each place of the output as if those before it
  // had just come. It is exact, and takes no longer than a prompt of that length, as no bit depends on what runs
  // together. It uses the KV blocks as run() does: an engine that replays must not be given requests. Throws Error for
  // a request that can never run.
  Replayed replay(const Request& request);
  // Rank 0. Tells the other ranks that this one is alive while there is no work. Without it they give up after the
  // communicator's timeout.
  void heartbeat();
  // Rank 0. Returns what each rank has sent so far, by rank. The exchange that collects this is not counted.
  std::vector<CommCounters> collect_counters();
  // Rank 0. Returns what each rank's experts have run so far, by rank. This exchange is not counted either.
  std::vector<ExpertLoad> collect_load();
  // Rank 0. Ends follow() on the other ranks.
  void stop();

  // Every other rank. Runs what rank 0 broadcasts, and returns when rank 0 calls stop().
  void follow();

 private:
  Model model_;
  Communicator& comm_;
  RankGrid grid_;
  ThreadPool pool_;
  Scheduler scheduler_;
  KvCache kv_;
  Activations activations_;
  BatchSampler sampler_;
  RouteRecorder recorder_;
  std::vector<std::int64_t> failed_, started_;  // by the last step
  Batch batch_;                                 // of the last step that has ended
  // The steps that are under way, in the order in which they began, and what came of some that had to end before
  // step() asked for it.
  struct Flight {
    int lane;
    ScheduledStep step;
  };
  std::deque<Flight> flights_;
  std::vector<TokenEvent> early_;
  bool ended_early_ = false;
  int next_lane_ = 0;
  std::vector<std::int32_t> message_;

  double timeout_s_;  // the timeout to set at the end of the start; 0: already done

  int owners() const { return model_.placement.owners(); }
  void begin_steps(const std::function<void()>& planned);
  void end_oldest(std::vector<TokenEvent>& events);
  void end_all();
  void begin_run(const Batch& batch);
  Logits end_run(const Batch& batch, std::span<const std::int64_t> sequences = {});
  void end_start();
  std::vector<CommCounters> gather_counters(const CommCounters& mine);
};

}  // namespace foe
