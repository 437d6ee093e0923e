// Measures attention over the KV cache in each of its types, and in bf16: decode with a long context, which memory
// limits, and prefill, which arithmetic limits. Decode is compared with reading the same bytes. Prefill is given as a
// share of the peak of arithmetic in registers: of f32 multiply-adds or, for attention in bf16 if there are tile
// registers, of their products.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/clock.h"
#include "base/huge_pages.h"
#include "base/rng.h"
#include "kernels/peak.h"

namespace foe {
namespace {

struct Load {
  int sequences, context, tokens;  // each sequence runs its last `tokens` positions of `context`
  int query_heads, kv_heads, head_dim;
};

struct Types {
  KvType kv = KvType::kF32;
  AttentionType attention = AttentionType::kF32;
};
std::string name_of(Types types) {
  return to_string(types.kv) + std::string(types.attention == AttentionType::kBF16 ? ", in bf16" : "");
}

// The peak of arithmetic on all threads.
struct Peaks {
  double f32 = 0, tiles = 0;
  double of(Types types) const { return types.attention == AttentionType::kBF16 && tiles > 0 ? tiles : f32; }
};
const Peaks& peaks() {
  static const Peaks measured = [] {
    ThreadPool pool(available_threads());
    return Peaks{measure_fma_peak(pool), measure_tile_peaks(pool).flops_per_s};
  }();
  return measured;
}

std::vector<float> noise(std::size_t size) {
  std::vector<float> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = static_cast<float>(random_normal(1, i % 65536));
  return x;
}

// The KV caches of several layers, all equal and full, and a step that reads them. There are so many layers that the
// next one is not in a processor cache.
struct Layers {
  KvShape shape;
  int query_heads;
  Batch batch;
  std::size_t read_bytes;  // of one layer, at least
  AlignedBuffer<std::byte> kv;
  std::vector<float> q_TnC, out_TnC;
  double flops = 0;

  Layers(const Load& load, Types types)
      : shape{load.kv_heads, load.head_dim, load.head_dim, types.kv, types.attention},
        query_heads(load.query_heads),
        read_bytes(shape.block_bytes() * (load.context / kKvBlock) * load.sequences),
        kv(large_buffer<std::byte>((kCold + read_bytes - 1) / read_bytes * read_bytes)) {
    const std::vector<float> rows = noise(static_cast<std::size_t>(load.context) * load.kv_heads * load.head_dim);
    ThreadPool pool(1);
    for (int s = 0; s < load.sequences; ++s) {
      std::vector<std::int32_t> blocks;
      for (int b = 0; b < load.context / kKvBlock; ++b) blocks.push_back(b * load.sequences + s);
      Batch filled;
      filled.add_sequence(std::vector<std::int32_t>(load.context), 0, blocks, Batch::Sample::kNone);
      for (std::size_t at = 0; at < kv.size(); at += read_bytes)
        write_kv(pool, filled, shape, rows.data(), rows.data(), kv.data() + at);
      const int first = load.context - load.tokens;
      batch.add_sequence(std::vector<std::int32_t>(load.tokens), first, blocks, Batch::Sample::kNone);
      for (int i = first; i < load.context; ++i) flops += 4.0 * (i + 1) * load.query_heads * load.head_dim;
    }
    q_TnC = noise(static_cast<std::size_t>(batch.num_tokens()) * load.query_heads * load.head_dim);
    out_TnC.resize(q_TnC.size());
  }

  std::byte* next() {
    at_ = (at_ + read_bytes) % kv.size();
    return kv.data() + at_;
  }

 private:
  static constexpr std::size_t kCold = 64 << 20;  // bytes; more than most last-level caches have
  std::size_t at_ = 0;
};

void run_attention(benchmark::State& state, const Load& load, Types types) {
  Layers layers(load, types);
  ThreadPool pool(available_threads());
  for (auto _ : state)
    attention(pool, layers.batch, layers.shape, layers.query_heads, {}, layers.q_TnC.data(), layers.next(),
              layers.out_TnC.data());
  using benchmark::Counter;
  state.counters["FLOP/s"] = Counter(layers.flops, Counter::kIsIterationInvariantRate);
  state.counters["of limit"] = Counter(layers.flops / peaks().of(types), Counter::kIsIterationInvariantRate);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layers.read_bytes));
}

void run_write(benchmark::State& state, const Load& load, Types types) {
  Layers layers(load, types);
  const std::vector<float> rows = noise(static_cast<std::size_t>(load.tokens) * load.kv_heads * load.head_dim);
  ThreadPool pool(available_threads());
  for (auto _ : state) write_kv(pool, layers.batch, layers.shape, rows.data(), rows.data(), layers.next());
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layers.read_bytes));
}

// Sums all bytes with as many threads. Each reads a part of its own in one stream, which prefetches like products do.
void run_read(benchmark::State& state, const Load& load, Types types) {
  Layers layers(load, types);
  ThreadPool pool(available_threads());
  constexpr std::size_t kLine = 64, kAhead = 2048;
  const std::size_t lines = layers.read_bytes / kLine, threads = pool.threads();
  for (auto _ : state) {
    const std::byte* const kv = layers.next();
    pool.parallel_for(threads, [&](std::size_t i) {
      std::uint64_t sum = 0;
      for (std::size_t line = lines * i / threads; line < lines * (i + 1) / threads; ++line) {
        const std::byte* const at = kv + line * kLine;
        __builtin_prefetch(at + kAhead);
        for (std::size_t w = 0; w < kLine / sizeof sum; ++w) sum += reinterpret_cast<const std::uint64_t*>(at)[w];
      }
      benchmark::DoNotOptimize(sum);
    });
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layers.read_bytes));
}

struct Case {
  const char* name;
  Load load;
};
constexpr Case kCases[] = {{"decode 1 x 16384, 8 KV heads", {1, 16384, 1, 8, 8, 96}},
                           {"decode 1 x 16384, 8 KV heads of 4 queries", {1, 16384, 1, 32, 8, 128}},
                           {"decode 1 x 16384, 1 KV head", {1, 16384, 1, 1, 1, 96}},
                           {"decode 8 x 2048, 8 KV heads", {8, 2048, 1, 8, 8, 96}},
                           {"decode 1 x 16384, 4 KV heads of 4 queries", {1, 16384, 1, 16, 4, 64}},
                           {"decode 1 x 160, 4 KV heads of 4 queries", {1, 160, 1, 16, 4, 64}},
                           {"decode 16 x 160, 4 KV heads of 4 queries", {16, 160, 1, 16, 4, 64}},
                           {"prefill 512 after 15872, 4 KV heads of 4 queries", {1, 16384, 512, 16, 4, 64}},
                           {"prefill 2048, 8 KV heads", {1, 2048, 2048, 8, 8, 96}},
                           {"prefill 2048, 8 KV heads of 4 queries", {1, 2048, 2048, 32, 8, 128}}};

void add_cases() {
  for (const Case& c : kCases)
    for (const Types types : {Types{KvType::kF32}, Types{KvType::kBF16}, Types{KvType::kInt8},
                              Types{KvType::kBF16, AttentionType::kBF16}}) {
      const auto add = [&](const char* what, auto run) {
        const std::string name = std::string(c.name) + "/" + name_of(types) + "/" + what;
        benchmark::RegisterBenchmark(name.c_str(), run, c.load, types)
            ->UseRealTime()
            ->Repetitions(3)
            ->ReportAggregatesOnly()
            ->Unit(benchmark::kMillisecond);
      };
      add("attention", run_attention);
      if (types.attention == AttentionType::kBF16) continue;  // the same cache
      if (c.load.tokens == 1) add("plain read", run_read);
      if (c.load.tokens > 1) add("write", run_write);
    }
}

}  // namespace
}  // namespace foe

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  foe::add_cases();
  std::printf("limit: %.0f GFLOP/s of f32 multiply-adds on all threads; in bf16 ", foe::peaks().f32 / 1e9);
  foe::peaks().tiles > 0 ? std::printf("%.0f GFLOP/s of tiles\n", foe::peaks().tiles / 1e9)
                         : std::printf("the same, as there are no tiles\n");
  benchmark::RunSpecifiedBenchmarks();
}
