// foe bench kernels: products at the shapes of a model, as a share of what the machine can do.
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "bench/json_file.h"
#include "bench/kernels.h"
#include "bench/shapes.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"

namespace foe {
namespace {

struct KernelFlags {
  std::string shape = "paper-1b", json;
  std::vector<std::string> formats{"bf16", "bf16xbf16", "int8", "int4"};
  std::vector<int> tokens{1, 4, 16, 64, 512};
  double seconds = 0.5;
  int threads = 0;
};

void run_bench_kernels(const KernelFlags& flags) {
  const JsonFile file("--json", flags.json);
  KernelOptions options{.shape = load_shape(flags.shape).config,
                        .formats = {},
                        .tokens = flags.tokens,
                        .seconds_per_point = flags.seconds};
  for (const std::string& format : flags.formats) options.formats.push_back(parse_weight_format("--formats", format));
  ThreadPool pool(flags.threads > 0 ? flags.threads : available_threads());
  const MachineLimits limits = measure_limits(pool);
  fmt::print("{}, {} threads, {}; {:.1f} GB/s read, {:.1f} GFLOP/s in f32, {:.1f} Gop/s of integer dot products\n",
             flags.shape, pool.threads(), instruction_set(), limits.read_bytes_per_s / 1e9, limits.flops_per_s / 1e9,
             limits.dots_per_s / 1e9);
  if (limits.tiles.dots_per_s > 0)
    fmt::print(
        "tiles: {:.1f} GFLOP/s in bf16, {:.1f} Gop/s of integers; shares of arithmetic are of these where tiles take "
        "the format\n",
        limits.tiles.flops_per_s / 1e9, limits.tiles.dots_per_s / 1e9);
  fmt::print("{:<22} {:>6} {:>6} {:>10} {:>21} {:>8} {:>6} {:>8} {:>6}\n", "kernel", "format", "tokens", "us",
             "10th-90th percentile", "GB/s", "%", "Gop/s", "%");
  nlohmann::json points = nlohmann::json::array();
  bench_kernels(pool, options, [&](const KernelPoint& p) {
    fmt::print("{:<22} {:>6} {:>6} {:>10.1f} {:>10.1f}-{:<10.1f} {:>8.2f} {:>6.1f} {:>8.1f} {:>6.1f}\n", p.kernel,
               to_string(p.format), p.tokens, 1e6 * p.seconds, 1e6 * p.low, 1e6 * p.high, p.bytes / p.seconds / 1e9,
               100 * p.share_of_reading(limits), p.operations / p.seconds / 1e9, 100 * p.share_of_peak(limits));
    std::fflush(stdout);
    points.push_back({{"kernel", p.kernel},
                      {"format", to_string(p.format)},
                      {"tokens", p.tokens},
                      {"repetitions", p.repetitions},
                      {"seconds", p.seconds},
                      {"p10_s", p.low},
                      {"p90_s", p.high},
                      {"bytes", p.bytes},
                      {"operations", p.operations},
                      {"share_of_reading", p.share_of_reading(limits)},
                      {"share_of_peak", p.share_of_peak(limits)}});
  });
  file.write({{"shape", flags.shape},
              {"threads", pool.threads()},
              {"instruction_set", instruction_set()},
              {"read_bytes_per_second", limits.read_bytes_per_s},
              {"flops_per_second", limits.flops_per_s},
              {"dots_per_second", limits.dots_per_s},
              {"tile_flops_per_second", limits.tiles.flops_per_s},
              {"tile_dots_per_second", limits.tiles.dots_per_s},
              {"points", points}});
}

}  // namespace

void add_kernels_command(Command bench) {
  auto flags = std::make_shared<KernelFlags>();
  Command command = bench.subcommand(
      "kernels",
      "Time of the matrix products at a model's shapes, as a share of this machine's memory and arithmetic speed");
  command.option("--shape", flags->shape, kShapesHelp).show_default();
  command.option("--formats", flags->formats, "formats of the weights")
      .list()
      .one_of({"f32", "bf16", "bf16xbf16", "int8", "int4", "q8_0", "q4_1", "q4_k", "q6_k"})
      .show_default();
  command.option("--tokens", flags->tokens, "numbers of tokens, the rows of activations that are multiplied")
      .list()
      .range(1, 1 << 16)
      .show_default();
  command.option("--seconds", flags->seconds, "seconds of measurement for each product, format and number of tokens")
      .number_in(0.01, 60)
      .show_default();
  command.option("--threads", flags->threads, "number of threads; default: all cores").range(1, 1024);
  command.option("--json", flags->json, "also write all results to this file");
  command.runs([flags] { run_bench_kernels(*flags); });
}

}  // namespace foe
