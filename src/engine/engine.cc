#include "engine/engine.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "base/error.h"
#include "engine/sampler.h"

namespace foe {
namespace {

// The first word of every broadcast.
enum Order : std::int32_t { kStop, kHeartbeat, kReportCounters, kReportLoad, kRun };

int kv_blocks(const Model& model, const EngineOptions& options) {
  const int tokens = options.kv_tokens > 0 ? options.kv_tokens : model.config.max_position_embeddings;
  return (tokens + kKvBlock - 1) / kKvBlock;
}

}  // namespace

Engine::Engine(Model model, Communicator& comm, const EngineOptions& options)
    : model_(std::move(model)),
      comm_(comm),
      grid_(model_.placement, comm, options.exchange.overlap),
      pool_(options.threads),
      kv_(model_.config.num_hidden_layers, kv_blocks(model_, options), model_.kv_shape()),
      activations_(model_, options.max_batch_tokens,
                   options.max_sampled > 0 ? options.max_sampled : options.max_sequences, options.exchange),
      scheduler_({.kv_blocks = kv_blocks(model_, options),
                  .max_tokens = options.max_batch_tokens,
                  .max_sequences = options.max_sequences,
                  .max_sampled = options.max_sampled,
                  .max_positions = model_.config.max_position_embeddings,
                  .owners = owners()}) {}

void Engine::submit(Request request) {
  validate(request.sampling);
  for (const auto* tokens : {&request.prompt, &request.output})
    for (const std::int32_t token : *tokens)
      if (token < 0 || token >= model_.config.vocab_size)
        fail("token: expected an id in [0, {}), got {}", model_.config.vocab_size, token);
  scheduler_.add(std::move(request));
}

std::vector<TokenEvent> Engine::step() {
  const Batch& batch = scheduler_.next();
  if (batch.empty()) return {};
  const std::span<const float> logits_SV = run(batch);
  const std::size_t V = model_.config.vocab_size;
  std::vector<SampledToken> tokens;
  for (int i = 0; i < batch.num_sampled(); ++i) {
    const auto [request, position] = scheduler_.sampled(i);
    const int output = position + 1 - static_cast<int>(request->prompt.size());
    tokens.push_back(
        {output < 0 ? request->prompt[position + 1] : sample(logits_SV.subspan(i * V, V), request->sampling, output)});
  }
  return scheduler_.commit(tokens);
}

std::span<const float> Engine::run(const Batch& batch) {
  if (comm_.size() > 1) {
    message_ = encode(batch);
    message_.insert(message_.begin(), kRun);
    comm_.broadcast(message_);
  }
  return forward(model_, batch, kv_, activations_, grid_, pool_);
}

void Engine::heartbeat() {
  message_.assign(1, kHeartbeat);
  comm_.broadcast(message_);
}

std::vector<CommCounters> Engine::collect_counters() {
  const CommCounters mine = comm_.counters();
  message_.assign(1, kReportCounters);
  comm_.broadcast(message_);
  return gather_counters(mine);
}

std::vector<CommCounters> Engine::gather_counters(const CommCounters& mine) {
  // A gather moves floats; the counters' bytes travel as such.
  constexpr std::size_t kFloats = sizeof(CommCounters) / sizeof(float);
  static_assert(std::is_trivially_copyable_v<CommCounters> && sizeof(CommCounters) % sizeof(float) == 0);
  float send[kFloats];
  std::memcpy(send, &mine, sizeof mine);
  std::vector<float> received(kFloats * comm_.size());
  comm_.gather(send, std::vector<std::size_t>(comm_.size(), kFloats), received.data());
  comm_.restore_counters(mine);
  std::vector<CommCounters> all(comm_.size());
  std::memcpy(static_cast<void*>(all.data()), received.data(), all.size() * sizeof(CommCounters));
  return all;
}

std::vector<ExpertLoad> Engine::collect_load() {
  const CommCounters before = comm_.counters();
  message_.assign(1, kReportLoad);
  comm_.broadcast(message_);
  std::vector<ExpertLoad> all = gather_load(comm_, model_.config, model_.placement, activations_.load);
  comm_.restore_counters(before);
  return all;
}

void Engine::stop() {
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
      gather_load(comm_, model_.config, model_.placement, activations_.load);
      comm_.restore_counters(before);
      continue;
    }
    const Batch batch =
        decode(std::span<const std::int32_t>(message_).subspan(1), model_.config.vocab_size, kv_.blocks(), owners());
    forward(model_, batch, kv_, activations_, grid_, pool_);
  }
}

}  // namespace foe
