// Attention over the KV cache in each of its types: decode at long context, which the memory bounds, and prefill, which
// arithmetic bounds. Reading the same bytes is what decode is compared with.
#include "kernels/attention.h"

#include <benchmark/benchmark.h>

#include "base/huge_pages.h"
#include "base/rng.h"

namespace foe {
namespace {

struct Load {
  int sequences, context, tokens;  // each sequence runs its last `tokens` positions of `context`
  int query_heads, kv_heads, head_dim;
};

std::vector<float> noise(std::size_t size) {
  std::vector<float> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = static_cast<float>(random_normal(1, i % 65536));
  return x;
}

// One layer's cache, full, and the step that reads it.
struct Layer {
  KvShape shape;
  int query_heads;
  Batch batch;
  AlignedBuffer<std::byte> kv;
  std::vector<float> q_TnC, out_TnC;
  double flops = 0;
  std::size_t read_bytes = 0;  // at least

  Layer(const Load& load, KvType type)
      : shape{load.kv_heads, load.head_dim, type},
        query_heads(load.query_heads),
        kv(large_buffer<std::byte>(shape.block_bytes() * (load.context / kKvBlock) * load.sequences)),
        read_bytes(kv.size()) {
    const std::vector<float> rows = noise(static_cast<std::size_t>(load.context) * load.kv_heads * load.head_dim);
    ThreadPool pool(1);
    for (int s = 0; s < load.sequences; ++s) {
      std::vector<std::int32_t> blocks;
      for (int b = 0; b < load.context / kKvBlock; ++b) blocks.push_back(b * load.sequences + s);
      Batch filled;
      filled.add_sequence(std::vector<std::int32_t>(load.context), 0, blocks, Batch::Sample::kNone);
      write_kv(pool, filled, shape, rows.data(), rows.data(), kv.data());
      const int first = load.context - load.tokens;
      batch.add_sequence(std::vector<std::int32_t>(load.tokens), first, blocks, Batch::Sample::kNone);
      for (int i = first; i < load.context; ++i) flops += 4.0 * (i + 1) * load.query_heads * load.head_dim;
    }
    q_TnC = noise(static_cast<std::size_t>(batch.num_tokens()) * load.query_heads * load.head_dim);
    out_TnC.resize(q_TnC.size());
  }
};

void run_attention(benchmark::State& state, const Load& load, KvType type) {
  Layer layer(load, type);
  ThreadPool pool(available_threads());
  for (auto _ : state)
    attention(pool, layer.batch, layer.shape, layer.query_heads, layer.q_TnC.data(), layer.kv.data(),
              layer.out_TnC.data());
  using benchmark::Counter;
  state.counters["FLOP/s"] = Counter(layer.flops, Counter::kIsIterationInvariantRate);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layer.read_bytes));
}

void run_write(benchmark::State& state, const Load& load, KvType type) {
  Layer layer(load, type);
  const std::vector<float> rows = noise(static_cast<std::size_t>(load.tokens) * load.kv_heads * load.head_dim);
  ThreadPool pool(available_threads());
  for (auto _ : state) write_kv(pool, layer.batch, layer.shape, rows.data(), rows.data(), layer.kv.data());
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layer.read_bytes));
}

// The sum of all bytes, by as many threads, in pieces of a megabyte.
void run_read(benchmark::State& state, const Load& load, KvType type) {
  Layer layer(load, type);
  ThreadPool pool(available_threads());
  constexpr std::size_t kPiece = 1 << 20;
  const std::size_t pieces = (layer.kv.size() + kPiece - 1) / kPiece;
  for (auto _ : state)
    pool.parallel_for(pieces, [&](std::size_t i) {
      const auto* begin = reinterpret_cast<const std::uint64_t*>(layer.kv.data() + i * kPiece);
      const std::size_t words = std::min(kPiece, layer.kv.size() - i * kPiece) / sizeof(std::uint64_t);
      std::uint64_t sum = 0;
      for (std::size_t w = 0; w < words; ++w) sum += begin[w];
      benchmark::DoNotOptimize(sum);
    });
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * layer.read_bytes));
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
    for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
      const auto add = [&](const char* what, auto run) {
        const std::string name = std::string(c.name) + "/" + to_string(type) + "/" + what;
        benchmark::RegisterBenchmark(name.c_str(), run, c.load, type)
            ->UseRealTime()
            ->Repetitions(3)
            ->ReportAggregatesOnly()
            ->Unit(benchmark::kMillisecond);
      };
      add("attention", run_attention);
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
  benchmark::RunSpecifiedBenchmarks();
}
