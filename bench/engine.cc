#include "bench/engine.h"

#include <algorithm>
#include <numeric>

#include "base/clock.h"
#include "base/rng.h"
#include "sched/sequence.h"

namespace foe {
namespace {

// Sequences with equally many KV blocks, in ascending order.
struct Sequences {
  int blocks_each, vocab, owners, count;

  std::vector<std::int32_t> blocks(int s) const {
    std::vector<std::int32_t> ids(blocks_each);
    std::iota(ids.begin(), ids.end(), s * blocks_each);
    return ids;
  }
  std::vector<std::int32_t> tokens(int s, int first, int n) const {
    std::vector<std::int32_t> ids(n);
    for (int i = 0; i < n; ++i)
      ids[i] = static_cast<std::int32_t>(random_bits(s, first + i) % static_cast<std::uint64_t>(vocab));
    return ids;
  }
  void add(Batch& batch, int s, int first, int n, Batch::Sample sample) const {
    batch.add_sequence(tokens(s, first, n), first, blocks(s), sample, s * owners / count);
  }
};

Sequences sequences_of(const Engine& engine, int positions, int count) {
  return {.blocks_each = blocks_for(positions),
          .vocab = engine.model().config.vocab_size,
          .owners = engine.model().placement.owners(),
          .count = count};
}

void run_prompt(Engine& engine, const Sequences& sequences, int s, int tokens, int chunk) {
  for (int at = 0; at < tokens; at += chunk) {
    const int n = std::min(chunk, tokens - at);
    Batch batch;
    sequences.add(batch, s, at, n, at + n == tokens ? Batch::Sample::kLast : Batch::Sample::kNone);
    engine.run(batch);
  }
}

// Calls `run` with 0, 1, ... and returns the times.
std::vector<double> repeat(const StepsOptions& options, const std::function<void(int)>& run) {
  std::vector<double> seconds;
  for (double spent = 0; spent <= options.seconds && static_cast<int>(seconds.size()) < options.most;) {
    const auto start = Clock::now();
    run(static_cast<int>(seconds.size()));
    seconds.push_back(seconds_since(start));
    spent += seconds.back();
  }
  return seconds;
}

int most_sequences(const StepsOptions& options) {
  return options.decode.empty() ? 0 : std::ranges::max(options.decode);
}

// Returns the positions of a decoding sequence, with one step that does not count.
int decode_positions(const StepsOptions& options) {
  return options.prompt + 1 + options.most;
}

}  // namespace

int longest_sequence(const StepsOptions& options) {
  const int prefill = options.prefill.empty() ? 0 : std::ranges::max(options.prefill);
  return std::max({16, prefill, options.decode.empty() ? 0 : decode_positions(options)});
}

int kv_tokens(const StepsOptions& options) {
  return std::max(longest_sequence(options),
                  most_sequences(options) * blocks_for(decode_positions(options)) * kKvBlock);
}

void run_first_token(Engine& engine) {
  run_prompt(engine, sequences_of(engine, 16, 1), 0, 16, 16);
}

void bench_steps(Engine& engine, const StepsOptions& options, const std::function<void(const StepsPoint&)>& progress) {
  for (const int tokens : options.prefill) {
    const Sequences one = sequences_of(engine, tokens, 1);
    const auto run = [&](int) { run_prompt(engine, one, 0, tokens, options.chunk); };
    progress({.decode = false, .sequences = 1, .tokens = tokens, .seconds = repeat(options, run)});
  }
  const Sequences all = sequences_of(engine, decode_positions(options), most_sequences(options));
  for (int s = 0; s < all.count; ++s) run_prompt(engine, all, s, options.prompt, options.chunk);
  for (const int count : options.decode) {
    const auto run = [&](int step) {
      Batch batch;
      for (int s = 0; s < count; ++s) all.add(batch, s, options.prompt + step, 1, Batch::Sample::kLast);
      engine.run(batch);
    };
    run(0);
    progress({.decode = true, .sequences = count, .tokens = 1, .seconds = repeat(options, [&](int i) { run(i + 1); })});
  }
}

}  // namespace foe
