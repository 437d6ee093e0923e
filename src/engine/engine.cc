#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "engine/sampler.h"

namespace foe {
namespace {

// The first word of every broadcast.
enum Order : std::int32_t { kStop, kHeartbeat, kReportCounters, kReportLoad, kRun };

int max_sampled(const EngineOptions& options) {
  return std::max({options.max_sampled, options.max_sequences, options.max_draft + 1});
}

}  // namespace

SchedulerLimits scheduler_limits(const ModelConfig& config, const Placement& placement, const EngineOptions& options) {
  const int tokens = options.kv_tokens > 0 ? options.kv_tokens : config.max_position_embeddings;
  return {.kv_blocks = blocks_for(tokens),
          .max_tokens = options.max_batch_tokens,
          .max_sequences = options.max_sequences,
          .max_sampled = max_sampled(options),
          .max_positions = config.max_position_embeddings,
          .alike_positions = alike_positions(config),
          .max_draft = options.max_draft,
          .owners = placement.owners(),
          // A record of routes is gathered at the end of each step, by all ranks together.
          .lanes = options.record.routes ? 1 : placement.stages,
          .prefix_caching = !options.record.routes};
}

Engine::Engine(Model model, Communicator& comm, const EngineOptions& options)
    : model_(std::move(model)),
      comm_(comm),
      grid_(model_.placement, comm, options.exchange.overlap),
      pool_(options.threads, options.pinned),
      scheduler_(scheduler_limits(model_.config, model_.placement, options)),
      kv_(model_.own_layers(), scheduler_.limits().lanes * scheduler_.limits().kv_blocks,
          model_.kv_shape(options.kv_type, options.attention)),
      activations_(model_, grid_.across_groups(), options.max_batch_tokens, max_sampled(options), options.exchange,
                   options.record),
      sampler_(model_.config.vocab_size, pool_),
      timeout_s_(options.timeout_s) {
  FOE_CHECK(options.max_draft == 0 || !options.record.routes, "{} tokens to guess, and a record", options.max_draft);
  if (timeout_s_ == 0 || options.warms_up) return;
  const CommCounters before = comm_.counters();
  meet(comm_);
  comm_.restore_counters(before);
  end_start();
}

void Engine::end_start() {
  if (timeout_s_ > 0) comm_.set_timeout(std::exchange(timeout_s_, 0));
}

void Engine::submit(Request request, std::shared_ptr<const Grammar> grammar) {
  validate(request, model_.config.vocab_size);
  if (scheduler_.contains(request.id)) fail("id: expected a new request, but request {} is here already", request.id);
  if (request.route) check_route(*request.route, model_.config, model_.identity, request.prompt.tokens());
  sampler_.admit(request, std::move(grammar));
  const std::int64_t id = request.id;
  try {
    scheduler_.add(std::move(request));
  } catch (const Error&) {
    sampler_.forget(id);
    throw;
  }
}

void Engine::abort(std::int64_t id) {
  // Its rows may be under way.
  if (scheduler_.contains(id)) end_all();
  std::erase_if(early_, [id](const TokenEvent& event) { return event.id == id; });
  scheduler_.abort(id);
  sampler_.forget(id);
}

std::vector<TokenEvent> Engine::step(const std::function<void()>& planned) {
  started_.clear();
  if (std::exchange(ended_early_, false)) return std::exchange(early_, {});
  failed_.clear();
  begin_steps(planned);
  std::vector<TokenEvent> events;
  if (!flights_.empty()) end_oldest(events);
  return events;
}

// Every lane has one step under way, or no sequences.
void Engine::begin_steps(const std::function<void()>& planned) {
  for (int tries = 0; tries < scheduler_.lanes() && static_cast<int>(flights_.size()) < scheduler_.lanes(); ++tries) {
    const int lane = std::exchange(next_lane_, (next_lane_ + 1) % scheduler_.lanes());
    if (std::ranges::find(flights_, lane, &Flight::lane) != flights_.end()) continue;
    ScheduledStep step = scheduler_.next(lane);
    started_.insert(started_.end(), scheduler_.started().begin(), scheduler_.started().end());
    if (step.batch.empty()) continue;
    if (planned) planned();
    step.batch.candidates = candidates_wanted(step.rows);
    begin_run(step.batch);
    flights_.push_back({lane, std::move(step)});
  }
}

void Engine::end_oldest(std::vector<TokenEvent>& events) {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  const Logits logits = end_run(flight.step.batch, flight.step.sequences);
  const std::vector<SampledToken> tokens = sampler_.sample(flight.step.rows, logits);
  for (const std::int64_t id : sampler_.not_finite()) {  // its rows give no events
    failed_.push_back(id);
    scheduler_.abort(id);
    sampler_.forget(id);
  }
  for (TokenEvent& event : scheduler_.commit(tokens, flight.lane)) {
    if (event.finish) sampler_.forget(event.id);
    events.push_back(std::move(event));
  }
  batch_ = std::move(flight.step.batch);
}

// Before what no step may be under way for.
void Engine::end_all() {
  if (flights_.empty()) return;
  if (!std::exchange(ended_early_, true)) failed_.clear();
  while (!flights_.empty()) end_oldest(early_);
}

std::span<const float> Engine::run(const Batch& batch) {
  FOE_CHECK(std::count(batch.candidates.begin(), batch.candidates.end(), 0) == batch.num_sampled(),
            "a batch that wants candidates");
  if (!batch.route_rows.empty()) check_route(batch.route, model_.config);
  end_all();
  begin_run(batch);
  return end_run(batch).whole_SV;
}

// Rank 0. Tells the other ranks to run the batch, and does so itself.
void Engine::begin_run(const Batch& batch) {
  if (comm_.size() > 1) {
    message_ = encode(batch);
    message_.insert(message_.begin(), kRun);
    comm_.broadcast(message_);
  }
  begin_forward(model_, batch, kv_, activations_, grid_, pool_);
}

Logits Engine::end_run(const Batch& batch, std::span<const std::int64_t> sequences) {
  const Logits logits = end_forward(model_, batch, activations_, grid_, pool_);
  if (activations_.record.layers > 0) recorder_.take(model_, batch, sequences, activations_, comm_);
  end_start();
  return logits;
}

void Engine::heartbeat() {
  message_.assign(1, kHeartbeat);
  comm_.broadcast(message_);
}

std::vector<CommCounters> Engine::collect_counters() {
  end_all();
  const CommCounters mine = comm_.counters();
  message_.assign(1, kReportCounters);
  comm_.broadcast(message_);
  return gather_counters(mine);
}

std::vector<CommCounters> Engine::gather_counters(const CommCounters& mine) {
  std::vector<CommCounters> all(comm_.size());
  comm_.gather({&mine, 1}, std::vector<std::size_t>(comm_.size(), 1), all.data());
  comm_.restore_counters(mine);
  return all;
}

std::vector<ExpertLoad> Engine::collect_load() {
  end_all();
  const CommCounters before = comm_.counters();
  message_.assign(1, kReportLoad);
  comm_.broadcast(message_);
  std::vector<ExpertLoad> all = gather_load(comm_, model_.config, model_.placement, activations_.stats.load);
  comm_.restore_counters(before);
  return all;
}

void Engine::stop() {
  end_all();
  message_.assign(1, kStop);
  comm_.broadcast(message_);
}

void Engine::follow() {
  FOE_CHECK(comm_.rank() != 0, "rank 0 leads");
  for (;;) {
    const CommCounters before = comm_.counters();
    comm_.broadcast(message_);
    if (message_.empty()) fail("rank {}: expected an order from rank 0, got an empty message", comm_.rank());
    if (message_[0] == kStop) return;
    if (message_[0] == kHeartbeat) continue;
    if (message_[0] == kReportCounters) {
      gather_counters(before);
      continue;
    }
    if (message_[0] == kReportLoad) {
      gather_load(comm_, model_.config, model_.placement, activations_.stats.load);
      comm_.restore_counters(before);
      continue;
    }
    const Batch batch = decode(std::span<const std::int32_t>(message_).subspan(1), model_.config.num_layers(),
                               model_.config.vocab_size, kv_.blocks(), owners());
    if (!batch.route_rows.empty()) check_route(batch.route, model_.config);
    begin_forward(model_, batch, kv_, activations_, grid_, pool_);
    end_run(batch);
  }
}

}  // namespace foe
