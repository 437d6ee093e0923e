// foe bench offline: measures the throughput of the engine without a server.
#include <memory>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "bench/decode_steps.h"
#include "bench/json_file.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"
#include "server/ranks/worker.h"
#include "weights/config_json.h"
#include "workload_flags.h"

namespace foe {
namespace {

struct OfflineFlags {
  ModelFlags model;
  WorkloadOptions workload;
  EngineOptions engine;
  std::string json;
};

struct OfflineRun {
  double seconds = 0;  // for submitting and all steps
  std::int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  std::size_t requests = 0, steps = 0;

  double per_s(std::int64_t n) const { return static_cast<double>(n) / seconds; }
};

OfflineRun run_all(Engine& engine, const std::vector<WorkloadPrompt>& prompts, std::optional<DecodeWatch>& watch) {
  OfflineRun run;
  run.requests = prompts.size();
  auto start = Clock::now();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request request;
    request.id = static_cast<std::int64_t>(i);
    request.prompt = prompts[i].ids;
    request.max_tokens = prompts[i].output_tokens;
    run.prompt_tokens += prompts[i].tokens;
    engine.submit(std::move(request));
  }
  run.seconds = seconds_since(start);
  for (; !engine.idle(); ++run.steps) {
    start = Clock::now();
    for (const TokenEvent& event : engine.step()) {
      ++run.output_tokens;
      if (event.finish) run.cached_tokens += event.cached_tokens;
    }
    if (!engine.failed().empty()) fail(kNotFinite);
    const double step_seconds = seconds_since(start);
    run.seconds += step_seconds;
    if (watch) watch->count(step_seconds);
  }
  return run;
}

void print_run(const Engine& engine, const OfflineRun& run) {
  fmt::print("{} ranks, {} threads each, plan {}, {}: {} requests in {:.2f} s, {} steps\n", engine.comm().size(),
             engine.threads(), to_string(engine.model().placement.plan), instruction_set(), run.requests, run.seconds,
             run.steps);
  fmt::print("{:>12} {:>16} {:>16} {:>16}\n", "requests/s", "prompt tokens/s", "output tokens/s", "total tokens/s");
  fmt::print("{:>12.2f} {:>16.1f} {:>16.1f} {:>16.1f}\n", run.per_s(static_cast<std::int64_t>(run.requests)),
             run.per_s(run.prompt_tokens), run.per_s(run.output_tokens),
             run.per_s(run.prompt_tokens + run.output_tokens));
}

nlohmann::json to_json(const Engine& engine, const OfflineFlags& flags, const OfflineRun& run) {
  const SchedulerStats stats = engine.scheduler().stats();
  return {{"model", flags.model.model},
          {"plan", to_string(engine.model().placement.plan)},
          {"ranks", engine.comm().size()},
          {"threads_per_rank", engine.threads()},
          {"instruction_set", instruction_set()},
          {"max_sequences", flags.engine.max_sequences},
          {"draft_tokens", flags.engine.max_draft},
          {"dataset", flags.workload.preset.empty() ? flags.workload.dataset : flags.workload.preset},
          {"seed", flags.workload.seed},
          {"requests", run.requests},
          {"steps", run.steps},
          {"seconds", run.seconds},
          {"prompt_tokens", run.prompt_tokens},
          {"cached_tokens", run.cached_tokens},
          {"output_tokens", run.output_tokens},
          {"drafted_tokens", stats.drafted_tokens},
          {"accepted_tokens", stats.accepted_tokens},
          {"requests_per_second", run.per_s(static_cast<std::int64_t>(run.requests))},
          {"prompt_tokens_per_second", run.per_s(run.prompt_tokens)},
          {"output_tokens_per_second", run.per_s(run.output_tokens)},
          {"total_tokens_per_second", run.per_s(run.prompt_tokens + run.output_tokens)}};
}

void run_offline(OfflineFlags flags) {
  const ModelConfig config = load_model_config(flags.model.model);
  flags.workload.context = config.max_position_embeddings;
  if (flags.engine.kv_tokens == 0)
    flags.engine.kv_tokens = default_kv_tokens(config, parse_kv_type(flags.model.kv_dtype), flags.engine.max_sequences);
  const Workload workload = make_workload(flags.workload, load_vocabulary(flags.model.model));
  for (const WorkloadPrompt& prompt : workload.prompts)
    if (prompt.ids.empty())
      fail("{}: expected prompts of at least one token, got an empty one; texts need a tokenizer in the model folder",
           flags.model.model);
  run_on_all_ranks(flags.model, flags.engine, [&](Engine& engine) {
    const JsonFile file("--json", flags.json);
    print_notes(workload);
    std::optional<DecodeWatch> watch;
    // All ranks are on this machine, and no two steps are under way at once: it counts after each.
    if (engine.comm().nodes().back() == 0 && engine.model().placement.stages == 1) watch.emplace(engine);
    const OfflineRun run = run_all(engine, workload.prompts, watch);
    print_run(engine, run);
    if (watch) print_decode(*watch);
    nlohmann::json out = to_json(engine, flags, run);
    if (watch) out["decode"] = to_json(*watch);
    file.write(out);
  });
}

}  // namespace

void add_offline_command(Command bench) {
  auto flags = std::make_shared<OfflineFlags>();
  flags->workload.prompts = 64;
  flags->workload.default_input_len = 128;
  Command command = bench.subcommand(
      "offline", "Throughput of the engine without a server: all requests at once, greedy, each to its full length");
  add_model_flags(command, flags->model);
  add_workload_flags(command, flags->workload);
  command.option("--max-sequences", flags->engine.max_sequences, "most sequences in one batch")
      .range(1, 4096)
      .show_default();
  add_kv_tokens(command, flags->engine.kv_tokens);
  add_draft_tokens(command, flags->engine.max_draft);
  command.option("--json", flags->json, "also write the results to this file");
  runs_on_model(command, flags->model.model, [flags] { run_offline(*flags); });
}

}  // namespace foe
