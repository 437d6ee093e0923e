// Measures the time of the scheduler per step, next() and commit() together, while all sequences decode.
#include "sched/scheduler.h"

#include <benchmark/benchmark.h>

#include "base/rng.h"

namespace {

using namespace foe;

// Each sequence has a context of so many tokens at the start, and about 500 more at the end. The copy of the block
// tables grows with it.
void decode(benchmark::State& state) {
  const int sequences = static_cast<int>(state.range(0)), context = static_cast<int>(state.range(1));
  const int answer = 512, blocks = sequences * (context + answer) / kKvBlock;
  Scheduler scheduler({.kv_blocks = blocks,
                       .max_tokens = sequences * context,
                       .max_sequences = sequences,
                       .max_positions = context + answer,
                       .owners = static_cast<int>(state.range(2))});
  std::vector<SampledToken> tokens;
  std::int64_t steps = 0;
  const auto step = [&] {
    tokens.resize(scheduler.next().rows.size());
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i].token = static_cast<std::int32_t>(random_bits(i, steps) % 50000);
    ++steps;
    benchmark::DoNotOptimize(scheduler.commit(tokens));
  };
  for (auto _ : state) {
    if (scheduler.idle()) {
      state.PauseTiming();
      for (int id = 0; id < sequences; ++id) {
        Request request;
        request.id = id;
        // The lengths differ, so that not all fill a block in the same step.
        std::vector<std::int32_t> prompt(context - id % kKvBlock);
        for (std::size_t i = 0; i < prompt.size(); ++i)
          prompt[i] = static_cast<std::int32_t>(random_bits(id, i) % 50000);
        request.prompt = std::move(prompt);
        request.max_tokens = answer;
        scheduler.add(std::move(request));
      }
      step();
      state.ResumeTiming();
    }
    step();
  }
}
BENCHMARK(decode)
    ->ArgNames({"sequences", "context", "owners"})
    ->Args({16, 1024, 1})
    ->Args({256, 128, 1})
    ->Args({256, 1024, 1})
    ->Args({256, 1024, 4})
    ->Args({256, 8192, 1})
    ->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
