#include "bench/machine.h"

#include <algorithm>
#include <exception>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "base/memory_nodes.h"
#include "bench/latency.h"
#include "kernels/cpu.h"

namespace foe {
namespace {

const std::vector<int> kKernelTokens{1, 16, 512};

// Returns the rest of the file's first line that begins with `key`, behind a colon if there is one; "unknown" if none
// does.
std::string line_of(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = key.empty() ? std::string::npos : line.find(':');
    const std::size_t from = colon == std::string::npos ? 0 : line.find_first_not_of(" \t", colon + 1);
    if (from != std::string::npos) return line.substr(from);
  }
  return "unknown";
}

std::size_t count(const std::vector<std::vector<int>>& nodes) {
  return std::accumulate(nodes.begin(), nodes.end(), std::size_t{0},
                         [](std::size_t sum, const std::vector<int>& node) { return sum + node.size(); });
}

// Calls run(rank) on a thread for each rank, bound to its processors, and rethrows what the first one threw.
void on_ranks(const std::vector<std::vector<int>>& processors, const std::function<void(int)>& run) {
  std::mutex mutex;
  std::exception_ptr error;
  std::vector<std::thread> ranks;
  for (std::size_t rank = 0; rank < processors.size(); ++rank)
    ranks.emplace_back([&, rank] {
      try {
        bind_thread(processors[rank]);  // threads that it starts, and memory that it touches first, stay near
        run(static_cast<int>(rank));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    });
  for (std::thread& rank : ranks) rank.join();
  if (error) std::rethrow_exception(error);
}

// Measures the steps of ranks that share the model in plan tp. They are threads of this process, and exchange through
// shared memory, as ranks of one machine do.
MachineSteps measure_steps(const MachineOptions& options, WeightFormat format,
                           const std::vector<std::vector<int>>& processors, int threads, bool bound) {
  MachineSteps steps{
      .ranks = static_cast<int>(processors.size()), .threads = threads, .bound = bound, .format = format};
  LatencyOptions latency{.shape = options.shape.config,
                         .dtype = format,
                         .rungs = {},
                         .loads = {},
                         .tokens = {},
                         .repetitions = 6,
                         .most_seconds = 4 * options.seconds,
                         .threads = threads,
                         .exchange = {},
                         .router_bias_E = {}};
  for (const Rung& rung : all_rungs())
    if (rung.plan == Plan::kTp && !rung.grouped) latency.rungs.push_back(rung);
  const auto comms = make_local_comms(steps.ranks, 3600);
  on_ranks(processors, [&](int rank) {
    const auto measure = [&](Load load, std::vector<int> tokens) {
      LatencyOptions these = latency;
      these.loads = {load};
      these.tokens = std::move(tokens);
      for (const LatencyPoint& point : bench_latency(these, *comms[rank], [](const LatencyPoint&) {})) {
        if (rank != 0) continue;
        const double tokens_per_s = point.tokens / point.seconds;
        (load == Load::kOnePrompt ? steps.prefill_512
         : point.tokens == 1      ? steps.decode_1
                                  : steps.decode_16) = tokens_per_s;
      }
    };
    measure(Load::kOnePrompt, {512});
    measure(Load::kDecode, {1, 16});
  });
  return steps;
}

}  // namespace

MachineFacts machine_facts() {
  utsname system{};
  uname(&system);
  struct sysinfo memory {};
  sysinfo(&memory);
  return {.processor = line_of("/proc/cpuinfo", "model name"),
          .kernel = fmt::format("{} {}", system.sysname, system.release),
          .huge_pages = line_of("/sys/kernel/mm/transparent_hugepage/enabled", ""),
          .instruction_set = instruction_set(),
          .memory_bytes = static_cast<double>(memory.totalram) * memory.mem_unit,
          .nodes = memory_nodes()};
}

std::vector<int> thread_counts(int processors) {
  std::vector<int> counts;
  for (int threads = 1; threads < processors; threads *= 2) counts.push_back(threads);
  counts.push_back(processors);
  return counts;
}

std::vector<std::vector<int>> processors_of_ranks(const std::vector<std::vector<int>>& nodes) {
  if (nodes.size() != 1 || nodes[0].size() < 2) return nodes;
  const auto middle = nodes[0].begin() + static_cast<std::ptrdiff_t>(nodes[0].size() / 2);
  return {{nodes[0].begin(), middle}, {middle, nodes[0].end()}};
}

MachineReport measure_machine(const MachineOptions& options, const std::function<void(const std::string&)>& progress) {
  MachineReport report{.how = options.how, .facts = machine_facts(), .limits = {}, .kernels = {}, .steps = {}};
  const std::vector<std::vector<int>>& nodes = report.facts.nodes;
  const int processors = static_cast<int>(count(nodes));
  std::vector<int> all;
  for (const std::vector<int>& node : nodes) all.insert(all.end(), node.begin(), node.end());
  for (const int threads : thread_counts(processors)) {
    progress(fmt::format("limits of {} of {} threads", threads, processors));
    ThreadPool pool(threads);
    report.limits.emplace_back(threads, measure_limits(pool));
  }
  {
    ThreadPool pool(processors);
    const KernelOptions kernels{.shape = options.shape.config,
                                .formats = options.formats,
                                .tokens = kKernelTokens,
                                .seconds_per_point = options.seconds};
    progress("products");
    bench_kernels(pool, kernels, [&](const KernelPoint& point) { report.kernels.push_back(point); });
  }
  const std::vector<std::vector<int>> ranks = processors_of_ranks(nodes);
  for (const WeightFormat format : options.formats) {
    for (const int threads : thread_counts(processors)) {
      progress(fmt::format("steps in {} on one rank with {} threads", to_string(format), threads));
      report.steps.push_back(measure_steps(options, format, {all}, threads, false));
    }
    const std::size_t least = std::ranges::min(ranks, {}, &std::vector<int>::size).size();
    if (ranks.size() < 2 || least == 0) continue;
    progress(fmt::format("steps in {} on {} ranks", to_string(format), ranks.size()));
    report.steps.push_back(measure_steps(options, format, ranks, static_cast<int>(least), true));
  }
  return report;
}

std::string to_markdown(const MachineReport& report) {
  const MachineFacts& facts = report.facts;
  std::string text = fmt::format("# foe on {}\n\n| | |\n|---|---|\n", facts.processor);
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("| {} | {} |\n", name, value);
  };
  line("measured", report.how);
  line("processors that foe may use", fmt::format("{}", count(facts.nodes)));
  for (std::size_t n = 0; n < facts.nodes.size(); ++n)
    line(fmt::format("memory node {}", n), fmt::format("processors {}", fmt::join(facts.nodes[n], " ")));
  line("memory", fmt::format("{:.1f} GB", facts.memory_bytes / 1e9));
  line("kernels for", facts.instruction_set);
  line("transparent huge pages", facts.huge_pages);
  line("system", facts.kernel);

  text +=
      "\n## Limits\n\n| threads | reading, GB/s | f32, GFLOP/s | 8-bit integers, Gop/s | bf16 in tiles, GFLOP/s | "
      "8-bit in tiles, Gop/s |\n|---|---|---|---|---|---|\n";
  const auto giga = [](double per_s) { return per_s > 0 ? fmt::format("{:.1f}", per_s / 1e9) : std::string("-"); };
  for (const auto& [threads, limits] : report.limits)
    text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", threads, giga(limits.read_bytes_per_s),
                        giga(limits.flops_per_s), giga(limits.dots_per_s), giga(limits.tiles.flops_per_s),
                        giga(limits.tiles.dots_per_s));

  const MachineLimits& limits = report.limits.back().second;
  text +=
      "\n## Products with all threads\n\nTime, share of reading, and share of the arithmetic's peak.\n\n"
      "| product | format |";
  for (const int tokens : kKernelTokens) text += fmt::format(" {} token{} |", tokens, tokens == 1 ? "" : "s");
  text += "\n|---|---|---|---|---|\n";
  for (std::size_t i = 0; i < report.kernels.size(); ++i) {
    const KernelPoint& point = report.kernels[i];
    if (i % kKernelTokens.size() == 0) text += fmt::format("| {} | {} |", point.kernel, to_string(point.format));
    text += fmt::format(" {:.0f} us, {:.0f} %, {:.0f} % |", 1e6 * point.seconds, 100 * point.share_of_reading(limits),
                        100 * point.share_of_peak(limits));
    if ((i + 1) % kKernelTokens.size() == 0) text += "\n";
  }

  text +=
      "\n## Steps of the model, tokens/s\n\nOf its layers, without embedding and token head. Bound ranks run near "
      "their "
      "memory.\n\n| format | ranks | threads of each | prefill 512 | decode, 1 stream | decode, 16 streams |\n"
      "|---|---|---|---|---|---|\n";
  for (const MachineSteps& steps : report.steps)
    text +=
        fmt::format("| {} | {}{} | {} | {:.0f} | {:.1f} | {:.1f} |\n", to_string(steps.format), steps.ranks,
                    steps.bound ? ", bound" : "", steps.threads, steps.prefill_512, steps.decode_1, steps.decode_16);
  return text;
}

}  // namespace foe
