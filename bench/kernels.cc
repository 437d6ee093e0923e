#include "bench/kernels.h"

#include <algorithm>
#include <numeric>

#include "base/clock.h"
#include "base/rng.h"
#include "bench/random_weights.h"
#include "kernels/products/gemm.h"
#include "load/serve_report.h"

namespace foe {
namespace {

constexpr std::size_t kMoreThanCaches = std::size_t{256} << 20;

std::vector<float> noise(std::size_t size) {
  std::vector<float> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = static_cast<float>(random_normal(1, i % 65536));
  return x;
}

// Rows of activations, also rounded for quantised weights.
struct Rows {
  std::size_t width;
  std::vector<float> x;
  AlignedBuffer<std::byte> codes;

  Rows(std::size_t rows, int n) : width(n), x(noise(rows * n)), codes(rows * most_row_bytes(n)) {}
  static std::size_t most_row_bytes(std::size_t n) {
    return std::max(quantised_row_bytes(WeightFormat::kInt8, n), quantised_row_bytes(WeightFormat::kBF16xBF16, n));
  }
  QuantisedRows view(WeightFormat format) {
    if (!rounds_rows(format)) return {};
    return {codes.data(), quantised_row_bytes(format, width)};
  }
  void quantise(ThreadPool& pool, WeightFormat format, int rows) {
    if (rounds_rows(format)) quantise_rows(pool, format, x.data(), width, rows, static_cast<int>(width), view(format));
  }
};

// Which tokens select which expert: rows sorted by expert.
struct Selection {
  std::vector<int> begin;  // by expert
  std::vector<std::int32_t> token;

  Selection(const ModelConfig& c, int tokens, std::uint64_t seed) : begin(c.experts(0).count + 1) {
    const int E = c.experts(0).count, K = c.experts(0).per_token;
    std::vector<std::vector<std::int32_t>> rows(E);
    std::vector<int> order(E);
    std::iota(order.begin(), order.end(), 0);
    for (int t = 0; t < tokens; ++t)
      for (int k = 0; k < K; ++k) {  // the first K of a shuffle
        std::swap(order[k], order[k + random_bits(seed + t, k) % (E - k)]);
        rows[order[k]].push_back(t);
      }
    for (int e = 0; e < E; ++e) {
      begin[e + 1] = begin[e] + static_cast<int>(rows[e].size());
      token.insert(token.end(), rows[e].begin(), rows[e].end());
    }
  }
};

class Bench {
 public:
  Bench(ThreadPool& pool, const KernelOptions& options, const std::function<void(const KernelPoint&)>& report)
      : pool_(pool), options_(options), report_(report), c_(options.shape) {}

  void experts(WeightFormat format) {
    struct Expert {
      PackedMatrix gate_up, down;
    };
    const int D = c_.hidden_size, F = c_.experts(0).width, E = c_.experts(0).count;
    RandomMatrices matrices(format, 1);
    std::vector<Expert> all;
    std::size_t bytes = 0;
    while (bytes < kMoreThanCaches || all.size() % E != 0) {
      const int rows = 2 * kPanel * ((F + kPanel - 1) / kPanel);
      all.push_back({matrices.next(rows, D), matrices.next(D, F)});
      bytes += all.back().gate_up.bytes() + all.back().down.bytes();
    }
    const double of_one = all[0].gate_up.bytes() + all[0].down.bytes(), elements = 3.0 * D * F;
    for (const int tokens : options_.tokens) {
      const int K = c_.experts(0).per_token;
      Rows x(tokens, D), hidden(static_cast<std::size_t>(tokens) * K, F), y(static_cast<std::size_t>(tokens) * K, D);
      std::size_t layer = 0;
      double touched = 0, turns = 0;
      run(
          "experts", format, tokens, elements * tokens * K,
          [&] {
            const Selection selection(c_, tokens, layer);
            const Expert* experts = &all[layer++ % (all.size() / E) * E];
            const auto products = [&](auto&& make) {
              std::vector<Product> list;
              for (int e = 0; e < E; ++e)
                if (const int n = selection.begin[e + 1] - selection.begin[e]; n > 0)
                  list.push_back(make(experts[e], static_cast<std::size_t>(selection.begin[e]), n));
              return list;
            };
            const QuantisedRows codes_at = x.view(format), hidden_at = hidden.view(format);
            const auto up = products([&](const Expert& e, std::size_t row, int n) {
              return Product{x.x.data(),
                             x.width,
                             selection.token.data() + row,
                             n,
                             &e.gate_up,
                             hidden.x.data() + row * F,
                             hidden.width,
                             nullptr,
                             codes_at};
            });
            const auto down = products([&](const Expert& e, std::size_t row, int n) {
              return Product{
                  hidden.x.data() + row * F, hidden.width, nullptr, n, &e.down, y.x.data() + row * D, y.width, nullptr,
                  from_row(hidden_at, row)};
            });
            touched += static_cast<double>(up.size());
            ++turns;
            const auto start = Clock::now();
            x.quantise(pool_, format, tokens);
            multiply_gated(pool_, up, {F});
            hidden.quantise(pool_, format, tokens * K);
            multiply(pool_, down);
            return seconds_since(start);
          },
          [&] { return of_one * touched / turns; });
    }
  }

  // Measures products of the same rows with matrices of these widths.
  void plain(const std::string& kernel, WeightFormat format, const std::vector<int>& widths, int depth) {
    RandomMatrices matrices(format, 1);
    std::vector<PackedMatrix> all;
    std::size_t bytes = 0, one = 0;
    while (bytes < kMoreThanCaches || all.size() % widths.size() != 0) {
      all.push_back(matrices.next(widths[all.size() % widths.size()], depth));
      bytes += all.back().bytes();
    }
    double elements = 0;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      one += all[i].bytes();
      elements += static_cast<double>(widths[i]) * depth;
    }
    for (const int tokens : options_.tokens) {
      Rows x(tokens, depth), y(tokens, *std::max_element(widths.begin(), widths.end()));
      std::vector<std::vector<float>> outputs(widths.size(), y.x);
      std::size_t layer = 0;
      run(
          kernel, format, tokens, elements * tokens,
          [&] {
            const PackedMatrix* w = &all[layer++ % (all.size() / widths.size()) * widths.size()];
            const auto start = Clock::now();
            x.quantise(pool_, format, tokens);
            const QuantisedRows codes = x.view(format);
            std::vector<Product> products;
            for (std::size_t i = 0; i < widths.size(); ++i)
              products.push_back(
                  {x.x.data(), x.width, nullptr, tokens, w + i, outputs[i].data(), y.width, nullptr, codes});
            multiply(pool_, products);
            return seconds_since(start);
          },
          [&] { return static_cast<double>(one); });
    }
  }

 private:
  template <typename Turn, typename Bytes>
  void run(const std::string& kernel, WeightFormat format, int tokens, double multiply_adds, Turn&& turn,
           Bytes&& bytes) {
    std::vector<double> seconds;
    turn();
    for (const auto start = Clock::now(); seconds.size() < 5 || seconds_since(start) < options_.seconds_per_point;)
      seconds.push_back(turn());
    const Distribution d = distribution_of(seconds, {10, 90});
    report_({.kernel = kernel,
             .format = format,
             .tokens = tokens,
             .repetitions = static_cast<int>(seconds.size()),
             .seconds = d.median,
             .low = d.percentiles[0],
             .high = d.percentiles[1],
             .bytes = bytes(),
             .operations = 2 * multiply_adds});
  }

  ThreadPool& pool_;
  const KernelOptions& options_;
  const std::function<void(const KernelPoint&)>& report_;
  const ModelConfig& c_;
};

}  // namespace

void bench_kernels(ThreadPool& pool, const KernelOptions& options,
                   const std::function<void(const KernelPoint&)>& report) {
  const ModelConfig& c = options.shape;
  Bench bench(pool, options, report);
  const AttentionConfig& a = c.heads();
  const std::vector<int> widths{static_cast<int>(a.queries_width()), static_cast<int>(a.keys_width()),
                                static_cast<int>(a.values_width())};
  for (const WeightFormat format : options.formats) {
    bench.plain("queries, keys, values", format, widths, c.hidden_size);
    bench.experts(format);
    bench.plain("token head", format, {c.vocab_size}, c.hidden_size);
  }
}

}  // namespace foe
