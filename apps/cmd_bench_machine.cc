// foe bench machine: a report of what a machine can do, to compare machines and to find the ranks and threads for one.
#include <ctime>
#include <memory>

#include <fmt/chrono.h>

#include "base/clock.h"
#include "bench/machine.h"
#include "commands.h"

namespace foe {
namespace {

struct MachineFlags {
  std::string shape = "qwen3-moe-24l";
  std::vector<std::string> formats{"int4", "int8", "bf16"};
  double seconds = 0.5;
  int layers = 0;
};

void run_bench_machine(const MachineFlags& flags) {
  MachineOptions options{.shape = load_shape(flags.shape), .formats = {}, .seconds = flags.seconds, .how = {}};
  if (flags.layers > 0) set_layers(options.shape.config, flags.layers);
  for (const std::string& format : flags.formats) options.formats.push_back(parse_weight_format("--formats", format));
  const std::time_t now = std::time(nullptr);
  options.how =
      fmt::format("{:%Y-%m-%d}, {}, `foe bench machine --shape {} --layers {} --seconds {}`", fmt::gmtime(now),
                  FOE_VERSION, flags.shape, options.shape.config.num_layers(), flags.seconds);
  const auto start = Clock::now();
  const MachineReport report = measure_machine(options, [&](const std::string& what) {
    fmt::print(stderr, "{:.0f} s: measuring {}\n", seconds_since(start), what);
  });
  fmt::print("{}", to_markdown(report));
}

}  // namespace

void add_machine_command(Command bench) {
  auto flags = std::make_shared<MachineFlags>();
  Command command = bench.subcommand(
      "machine",
      "A report of this machine in a few minutes: limits by number of threads, products, steps of a model, "
      "and ranks by memory node; Markdown on standard output");
  command.option("--shape", flags->shape, kShapesHelp).show_default();
  command.option("--layers", flags->layers, "number of layers that run, at least 2; default: all of the shape's")
      .range(2, 1024);
  command.option("--formats", flags->formats, "formats of the weights")
      .list()
      .one_of({"f32", "bf16", "bf16xbf16", "int8", "int4"})
      .show_default();
  command
      .option("--seconds", flags->seconds,
              "seconds of measurement for each product; steps of the model get four times as long")
      .number_in(0.001, 60)
      .show_default();
  command.runs([flags] { run_bench_machine(*flags); });
}

}  // namespace foe
