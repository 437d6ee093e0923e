// foe simulate: forward passes and serving on a cluster that is only described.
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "bench/json_file.h"
#include "bench/latency.h"
#include "bench/report.h"
#include "bench/shapes.h"
#include "commands.h"
#include "common.h"
#include "engine/sampler.h"
#include "serve_bench_flags.h"
#include "server/ranks/worker.h"
#include "simulate/serving.h"
#include "weights/tensor_file.h"
#include "workload_flags.h"

namespace foe {
namespace {

// What both commands have.
struct SimulateFlags {
  std::string cluster, shape = "paper-1b", quantize, routes, json;
  ModelFlags ranks;  // only plan, dispatch, wire, overlap and kv_dtype are used
  int ranks_count = 1, nodes = 0, layers = 0;
  std::uint64_t route_seed = 0;
  double route_skew = 0;
};

struct LatencyFlags : SimulateFlags {
  std::vector<std::string> rungs, loads{"one-prompt", "many-prompts", "decode"};
  std::vector<int> tokens{1, 8, 64, 512, 2048};
};

struct ServeFlags : SimulateFlags {
  ServeBenchFlags bench;
  EngineOptions engine;
  SamplingParams sampling;
};

WeightFormats formats_of(const SimulateFlags& flags) {
  const FormatChoice choice = format_choice("", flags.quantize);
  constexpr WeightFormat kOwn = WeightFormat::kBF16;
  return {choice.attention.value_or(kOwn), choice.experts.value_or(kOwn), choice.head.value_or(kOwn)};
}

Shape shape_of(const SimulateFlags& flags) {
  Shape shape = load_shape(flags.shape);
  if (flags.layers > 0) {
    set_layers(shape.config, flags.layers);
    shape.layers = flags.layers;
  }
  return shape;
}

RouteSource routes_of(const SimulateFlags& flags, const ModelConfig& config) {
  if (flags.routes.empty()) return RouteSource::drawn(config, flags.route_seed, flags.route_skew);
  if (flags.route_skew != 0) fail("--route-skew: expected no --routes beside it, got {}", flags.routes);
  const TensorFile file(flags.routes);
  return RouteSource::recorded(config, RouteFile(file.bytes(), flags.routes), flags.routes);
}

SimulatedModel simulated_model(const SimulateFlags& flags, const Cluster& cluster, ModelConfig config,
                               const PlanChoice& plan, Dispatch dispatch) {
  const std::vector<int> nodes = nodes_of_ranks(cluster, flags.ranks_count, flags.nodes);
  Placement placement = make_placement(config, plan, flags.ranks_count, nodes);
  ExchangeOptions exchange = exchange_of(flags.ranks);
  exchange.dispatch = dispatch;
  return {.config = std::move(config),
          .placement = std::move(placement),
          .nodes = nodes,
          .formats = formats_of(flags),
          .kv_type = parse_kv_type(flags.ranks.kv_dtype),
          .exchange = exchange};
}

nlohmann::json to_json(const std::vector<RankSeconds>& ranks) {
  nlohmann::json out = nlohmann::json::array();
  for (const RankSeconds& r : ranks)
    out.push_back({{"attention_s", r.attention},
                   {"experts_s", r.experts},
                   {"head_s", r.head},
                   {"host_s", r.host},
                   {"moving_s", r.moving},
                   {"waiting_s", r.waiting}});
  return out;
}

RankSeconds mean_of(const std::vector<RankSeconds>& ranks) {
  RankSeconds mean;
  for (const auto part : {&RankSeconds::attention, &RankSeconds::experts, &RankSeconds::head, &RankSeconds::host,
                          &RankSeconds::moving, &RankSeconds::waiting}) {
    for (const RankSeconds& rank : ranks) mean.*part += rank.*part;
    mean.*part /= static_cast<double>(ranks.size());
  }
  return mean;
}

nlohmann::json asked_json(const SimulateFlags& flags, const Cluster& cluster) {
  return {{"simulated", true},
          {"cluster", cluster.name},
          {"shape", flags.shape},
          {"ranks_count", flags.ranks_count},
          {"wire", flags.ranks.wire},
          {"kv_dtype", flags.ranks.kv_dtype},
          {"routes", flags.routes.empty() ? "drawn" : flags.routes}};
}

// --- latency ---

struct LatencyResult {
  const Rung& rung;
  Load load;
  int tokens;
  double seconds;
  RankSeconds mean;
  std::vector<CommCounters> ranks;
};

LatencyResult simulate_pass(const LatencyFlags& flags, const Cluster& cluster, const Shape& shape, const Rung& rung,
                            Load load, int tokens) {
  ModelConfig config = config_of(rung, shape.config, shape.groups);
  const RouteSource routes = routes_of(flags, config);
  StepSimulator steps(
      simulated_model(flags, cluster, std::move(config),
                      {rung.plan, flags.ranks.plan.stage_layers, rung.stages, rung.split_sequences}, rung.dispatch),
      cluster, routes);
  Batch batch = latency_batch(load, tokens, steps.model().placement.owners(), steps.model().config.vocab_size);
  std::vector<std::int64_t> sequences(batch.num_sequences());
  std::iota(sequences.begin(), sequences.end(), 0);
  const double seconds = steps.pass(batch, sequences);
  // What is sent to rank 0 is left out of the times, as `foe bench latency` does.
  std::vector<RankSeconds> ranks = steps.seconds();
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const CommCounter& gather = steps.sent()[r].gather;
    ranks[r].waiting -= gather.waiting_s;
    ranks[r].moving -= gather.seconds - gather.waiting_s;
  }
  return {rung, load, tokens, seconds, mean_of(ranks), steps.sent()};
}

void run_latency(const LatencyFlags& flags) {
  const Cluster cluster = load_cluster(flags.cluster);
  const Shape shape = shape_of(flags);
  const JsonFile file("--json", flags.json);
  nlohmann::json out = asked_json(flags, cluster);
  out["layers"] = shape.config.num_layers();
  fmt::print("simulated: {} on {} ranks of {}; mean over ranks, ms\n", flags.shape, flags.ranks_count, cluster.name);
  fmt::print("{:<16} {:<12} {:>7} {:>12} {:>10} {:>10} {:>10} {:>10} {:>12}\n", "rung", "load", "tokens", "layers",
             "attention", "experts", "moving", "waiting", "kB sent");
  for (const std::string& load : flags.loads)
    for (const int tokens : flags.tokens)
      for (const Rung& rung : rungs_of(flags.rungs)) {
        const LatencyResult r = simulate_pass(flags, cluster, shape, rung, parse_load(load), tokens);
        double bytes = 0;
        for (const CommCounters& rank : r.ranks) bytes += static_cast<double>(rank.total().bytes - rank.gather.bytes);
        fmt::print("{:<16} {:<12} {:>7} {:>12.3f} {:>10.3f} {:>10.3f} {:>10.3f} {:>10.3f} {:>12.1f}\n", rung.name, load,
                   tokens, 1e3 * r.seconds, 1e3 * r.mean.attention, 1e3 * r.mean.experts, 1e3 * r.mean.moving,
                   1e3 * r.mean.waiting, bytes / 1e3);
        out["points"].push_back({{"rung", rung.name},
                                 {"load", load},
                                 {"tokens", tokens},
                                 {"seconds", r.seconds},
                                 {"mean", to_json({r.mean})[0]},
                                 {"ranks", to_json(r.ranks)}});
      }
  file.write(out);
}

// --- serve ---

ModelConfig served_config(const Shape& shape, const std::string& plan) {
  ModelConfig config = shape.config;
  if (plan == "foe" && !config.federated()) config = in_groups(config, shape.groups, true);
  validate(config);
  return config;
}

void print_ranks(const StepSimulator& steps, const SimulatedServing& served) {
  const SchedulerStats& s = served.scheduler;
  fmt::print("{} steps of {:.1f} tokens; {} preemptions; {} of {} prompt tokens found in the prefix cache\n",
             served.steps,
             static_cast<double>(served.tokens) / static_cast<double>(std::max<std::int64_t>(1, served.steps)),
             s.preemptions, s.prefix_hits, s.prefix_queries);
  const RankSeconds mean = mean_of(steps.seconds());
  fmt::print(
      "seconds of the mean rank: attention {:.2f}, experts {:.2f}, token head {:.2f}, planning and sampling {:.2f}, "
      "moving {:.2f}, waiting {:.2f}\n",
      mean.attention, mean.experts, mean.head, mean.host, mean.moving, mean.waiting);
  print_counters(stdout, steps.sent());
}

void run_serve(ServeFlags flags) {
  const auto start = Clock::now();
  complete_rates(flags.bench);
  flags.bench.report.goodput = parse_goodput(flags.bench.goodput);
  const Cluster cluster = load_cluster(flags.cluster);
  const Shape shape = shape_of(flags);
  const ModelConfig config = served_config(shape, flags.ranks.plan.name);
  flags.bench.workload.context = config.max_position_embeddings;
  flags.engine.kv_type = parse_kv_type(flags.ranks.kv_dtype);
  if (flags.engine.kv_tokens == 0)
    flags.engine.kv_tokens = default_kv_tokens(config, flags.engine.kv_type, flags.engine.max_sequences);
  const Vocabulary vocabulary =
      shape.built_in ? Vocabulary{.tokenizer = {}, .size = config.vocab_size} : load_vocabulary(flags.shape);
  const JsonFile file("--json", flags.json);
  Workload workload = make_workload(flags.bench.workload, vocabulary);
  if (flags.bench.paced) workload.times.clear();
  print_notes(workload);
  for (const WorkloadPrompt& prompt : workload.prompts)
    if (prompt.ids.empty())
      fail("--shape: expected a model folder with a tokenizer, as prompts are texts, got {}", flags.shape);
  const RouteSource routes = routes_of(flags, config);
  nlohmann::json runs = nlohmann::json::array();
  for (const double rate : flags.bench.rates) {
    StepSimulator steps(simulated_model(flags, cluster, config, plan_of(flags.ranks.plan, config),
                                        parse_dispatch(flags.ranks.dispatch)),
                        cluster, routes);
    const std::vector<double> times = workload.times.empty()
                                          ? arrival_times(rates_of(flags.bench, rate, workload.prompts.size()),
                                                          flags.bench.burstiness, flags.bench.workload.seed)
                                          : workload.times;
    validate(flags.sampling);
    const ServingOptions options{.limits = scheduler_limits(config, steps.model().placement, flags.engine),
                                 .sampling = flags.sampling,
                                 .max_concurrency = flags.bench.load.max_concurrency};
    const SimulatedServing served = simulate_serving(steps, workload.prompts, times, options);
    const ServeReport report = report_serve(served.run, workload.prompts, flags.bench.report);
    fmt::print("simulated: {} on {} ranks of {}, plan {}, {:.6g} requests per second\n", flags.shape, flags.ranks_count,
               cluster.name, to_string(steps.model().placement.plan), rate);
    print_serve_report(stdout, report, flags.bench.report);
    print_ranks(steps, served);
    nlohmann::json run = asked_json(flags, cluster);
    run["plan"] = to_string(steps.model().placement.plan);
    run["request_rate"] = std::isinf(rate) ? nlohmann::json("inf") : nlohmann::json(rate);
    run["seed"] = flags.bench.workload.seed;
    run.update(to_json(report, flags.bench.report));
    run["steps"] = served.steps;
    run["preemptions"] = served.scheduler.preemptions;
    run["ranks"] = to_json(steps.sent());
    run["rank_seconds"] = to_json(steps.seconds());
    runs.push_back(std::move(run));
  }
  fmt::print("simulated in {:.1f} s\n", seconds_since(start));
  file.write(runs);
}

// --- flags ---

void add_simulate_flags(Command command, SimulateFlags& flags) {
  command.option("--cluster", flags.cluster, "TOML file that describes the cluster (docs/simulate.md)").required();
  command.option("--shape", flags.shape, kShapesHelp).show_default();
  command.option("--layers", flags.layers, "number of layers; default: the shape's").range(2, 1024);
  command.option("--ranks", flags.ranks_count, "number of ranks, each on a device of its own")
      .range(1, kMostDevices)
      .show_default();
  command.option("--nodes", flags.nodes, "nodes that the ranks are on; default: as few as hold them")
      .range(1, kMostDevices);
  add_wire_flags(command, flags.ranks);
  add_kv_dtype(command, flags.ranks.kv_dtype);
  add_quantize(command, flags.quantize);
  command.option("--routes", flags.routes,
                 "record of routes (docs/routes.md): tokens select the experts that it has; default: they are drawn");
  command.option("--route-seed", flags.route_seed, "seed of the experts that are drawn").show_default();
  command
      .option("--route-skew", flags.route_skew,
              "S: of the experts that are drawn the i-th most likely one is weighted with 1/i^S; 0: all are equally"
              " likely")
      .number_in(0, 10)
      .show_default();
  command.option("--json", flags.json, "also write the results to this file");
}

void add_simulate_latency(Command simulate) {
  auto flags = std::make_shared<LatencyFlags>();
  Command command =
      simulate.subcommand("latency", "Forward passes by their number of tokens, as `foe bench latency` measures them");
  add_simulate_flags(command, *flags);
  command
      .option("--rungs", flags->rungs,
              "which plans to compare, as in 'A ep,D foe': A ep, A ep per expert, A ep split, B tp, C tp grouped, D"
              " foe, E pp, and with two stages F pp x ep, G pp x foe; default: A to D")
      .list()
      .parsed_by([](const std::string& name) { rungs_of({name}); });
  command.option("--loads", flags->loads, "kinds of batches: one-prompt, many-prompts, decode")
      .list()
      .parsed_by(parse_load)
      .show_default();
  command.option("--tokens", flags->tokens, "numbers of tokens in a pass").list().range(1, 1 << 20).show_default();
  command.runs([flags] { run_latency(*flags); });
}

void add_simulate_serve(Command simulate) {
  auto flags = std::make_shared<ServeFlags>();
  Command command = simulate.subcommand(
      "serve",
      "Serving: the requests of `foe bench serve`, with the same seed the same ones, on a clock that is"
      " computed");
  add_simulate_flags(command, *flags);
  add_plan(command, flags->ranks.plan);
  command.option("--dispatch", flags->ranks.dispatch, "send a token's row once to each rank, or once for each expert")
      .one_of({"rank", "expert"})
      .show_default();
  command.option("--chunk", flags->engine.max_batch_tokens, "most tokens in a step; longer prompts run in several")
      .range(1, 1 << 20)
      .show_default();
  command.option("--max-sequences", flags->engine.max_sequences, "most sequences in one batch")
      .range(1, 1 << 16)
      .show_default();
  add_kv_tokens(command, flags->engine.kv_tokens);
  command
      .option("--temperature", flags->sampling.temperature,
              "of all requests: what ranks send of logits depends on it and on --top-k")
      .show_default();
  command.option("--top-k", flags->sampling.top_k, "of all requests; 0: all").show_default();
  add_workload_flags(command, flags->bench.workload);
  add_pace_flags(command, flags->bench);
  add_report_flags(command, flags->bench);
  command.runs([flags] { run_serve(*flags); });
}

}  // namespace

void add_simulate_command(Command app) {
  const Command simulate = app.subcommand(
      "simulate", "What a cluster would take and send: the real scheduler and plans, with costs in place of kernels");
  simulate.requires_subcommand();
  add_simulate_latency(simulate);
  add_simulate_serve(simulate);
  add_simulate_calibrate(simulate);
}

}  // namespace foe
