// foe bench engine: measures prefill and decode by themselves.
#include <algorithm>
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "bench/engine.h"
#include "bench/json_file.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"
#include "load/serve_report.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct EngineFlags {
  ModelFlags model;
  StepsOptions steps;
  std::string json;
};

void print_point(const StepsPoint& p) {
  const Distribution d = distribution_of(p.seconds, {10, 90});
  fmt::print("{:<8} {:>9} {:>7} {:>5} {:>10.3f} {:>10.3f}-{:<10.3f} {:>10.2f}\n", p.decode ? "decode" : "prefill",
             p.sequences, p.tokens, p.seconds.size(), 1e3 * d.median, 1e3 * d.percentiles[0], 1e3 * d.percentiles[1],
             p.tokens_per_s(d.median));
  std::fflush(stdout);
}

nlohmann::json to_json(const StepsPoint& p) {
  return {{"load", p.decode ? "decode" : "prefill"},
          {"sequences", p.sequences},
          {"tokens", p.tokens},
          {"seconds", p.seconds}};
}

EngineOptions engine_options(const EngineFlags& flags) {
  const int context = load_model_config(flags.model.model).max_position_embeddings;
  const int longest = longest_sequence(flags.steps);
  if (longest > context)
    fail("--prefill, --prompt-len and --repetitions: expected sequences of at most {} positions, the model's, got {}",
         context, longest);
  EngineOptions options;
  options.kv_tokens = kv_tokens(flags.steps);
  if (!flags.steps.decode.empty()) options.max_sequences = std::ranges::max(flags.steps.decode);
  return options;
}

void run_bench_engine(EngineFlags flags) {
  const auto start = Clock::now();
  flags.steps.chunk = flags.model.chunk;
  EngineOptions options = engine_options(flags);
  flags.model.chunk = std::max(flags.model.chunk, options.max_sequences);  // room for a token of each sequence
  run_on_all_ranks(flags.model, options, [&](Engine& engine) {
    const JsonFile file("--json", flags.json);
    run_first_token(engine);
    const double first_token_s = seconds_since(start);
    // A script that reads this line can measure the time since the start of the process.
    fmt::print("first token after {:.3f} s\n", first_token_s);
    fmt::print("{} ranks, {} threads each, plan {}, {}\n", engine.comm().size(), engine.threads(),
               to_string(engine.model().placement.plan), instruction_set());
    fmt::print("{:<8} {:>9} {:>7} {:>5} {:>10} {:>21} {:>10}\n", "load", "sequences", "tokens", "runs", "ms",
               "10th-90th percentile", "tokens/s");
    std::fflush(stdout);
    nlohmann::json points = nlohmann::json::array();
    bench_steps(engine, flags.steps, [&](const StepsPoint& p) {
      print_point(p);
      points.push_back(to_json(p));
    });
    file.write({{"model", flags.model.model},
                {"ranks", engine.comm().size()},
                {"threads_per_rank", engine.threads()},
                {"instruction_set", instruction_set()},
                {"first_token_s", first_token_s},
                {"kv_bytes", engine.kv_bytes()},
                {"activation_bytes", engine.activation_bytes()},
                {"points", points}});
  });
}

}  // namespace

void add_engine_command(Command bench) {
  auto flags = std::make_shared<EngineFlags>();
  Command command = bench.subcommand(
      "engine", "Time of single steps of the engine: prefill of one prompt, and decode of several sequences");
  add_model_flags(command, flags->model);
  command.option("--prefill", flags->steps.prefill, "lengths in tokens of prompts that are measured, each alone")
      .list()
      .range(1, 1 << 20)
      .show_default();
  command.option("--decode", flags->steps.decode, "numbers of sequences that decode together, one token each per step")
      .list()
      .range(1, 4096)
      .show_default();
  command
      .option("--prompt-len", flags->steps.prompt,
              "tokens that each decoding sequence has in the KV cache before its first step")
      .range(1, 1 << 20)
      .show_default();
  command
      .option("--seconds", flags->steps.seconds,
              "seconds of measurement for each prompt length or number of sequences, which is run at least once")
      .number_in(0, 3600)
      .show_default();
  command.option("--repetitions", flags->steps.most, "most repetitions of each measurement")
      .range(1, 4096)
      .show_default();
  command.option("--json", flags->json, "also write the times of all repetitions to this file");
  runs_on_model(command, flags->model.model, [flags] { run_bench_engine(*flags); });
}

}  // namespace foe
