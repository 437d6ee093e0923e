// foe bench latency: the ladder's command line, tables and JSON.
#include <algorithm>
#include <map>
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/json_file.h"
#include "bench/latency.h"
#include "bench/routing_skew.h"
#include "bench/shapes.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"

namespace foe {
namespace {

struct LatencyFlags {
  std::string shape = "paper-1b";
  int layers = 0;
  std::vector<std::string> rungs, loads{"one-prompt", "many-prompts", "decode"};
  std::vector<int> tokens{1, 8, 64, 512, 2048};
  std::string dtype = "bf16";
  ModelFlags ranks;  // only kv_dtype, attention, threads, wire, overlap and timeout are used
  int repetitions = 6;
  double most_seconds = 20, skew = 1;
  std::string json;
};

// Returns the shape that is measured. Built-in models get fewer layers, and a small vocabulary, because the token head
// is not measured.
Shape shape_of(const LatencyFlags& flags) {
  Shape shape = load_shape(flags.shape);
  if (shape.config.dense()) fail("--shape: expected a model with experts, got the dense {}", flags.shape);
  for (const LayerConfig& layer : shape.config.layers)
    if (layer != shape.config.layers[0]) fail("--shape: expected a model whose layers are alike, got {}", flags.shape);
  if (shape.built_in) {
    set_layers(shape.config, 2);
    shape.config.vocab_size = 4096;
  }
  if (flags.layers > 0) set_layers(shape.config, flags.layers);
  return shape;
}

void print_header(const LatencyFlags& flags, const Shape& shape, const LatencyOptions& options, int ranks) {
  fmt::print(
      "{}, {} of {} layers, {} weights, {} KV cache, attention in {}, {} ranks, {} threads each, {}; wire {}, {}\n",
      flags.shape, shape.config.num_layers(), shape.layers, flags.dtype, flags.ranks.kv_dtype, flags.ranks.attention,
      ranks, options.threads, instruction_set(), flags.ranks.wire,
      options.exchange.overlap ? "halves overlap" : "no overlap");
  if (flags.skew > 1)
    fmt::print("routing is skewed for a fullest rank of plan ep with {} times the rows of the median rank\n",
               flags.skew);
  fmt::print("{:>37}{:<30}{}\n", "", "layers, ms", "one layer, mean over ranks, ms");
  fmt::print("{:<16} {:<12} {:>6} {:>10} {:>19} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>6} {:>7} {:>10}\n", "rung",
             "load", "tokens", "median", "spread", "attention", "experts", "moving", "waiting", "uneven", "kB sent",
             "rows", "% local", fmt::format("x {}", shape.layers));
}

void print_point(const LatencyPoint& p, int layers) {
  const double ms = 1e3;
  fmt::print(
      "{:<16} {:<12} {:>6} {:>10.2f} {:>9.2f}-{:<9.2f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>10.1f} {:>6.2f} "
      "{:>7.1f} {:>10.1f}\n",
      p.rung, to_string(p.load), p.tokens, ms * p.seconds, ms * p.fastest, ms * p.slowest, ms * p.layer.attention,
      ms * p.layer.experts, ms * p.layer.moving, ms * p.layer.waiting, ms * p.layer.uneven, p.layer.bytes / 1e3,
      p.layer.row_balance, 100 * p.load_report.local_activation_rate, ms * p.layer.seconds() * layers);
  std::fflush(stdout);
}

// Prints, for each load and number of tokens, the time of a typical layer with foe over those of the best ep and of tp.
// It does not compare times of the pass: in its few layers the last one counts too much, which drops rows that are not
// sampled, and in which the plans exchange differently.
void print_bottom_line(const std::vector<LatencyPoint>& points) {
  std::map<std::pair<Load, int>, std::map<Plan, double>> best;
  for (const LatencyPoint& p : points) {
    const auto rung = std::ranges::find(all_rungs(), p.rung, &Rung::name);
    if (!rung->in_ladder() || (rung->plan == Plan::kTp && rung->grouped)) continue;
    const auto [of_plan, is_first] = best[{p.load, p.tokens}].try_emplace(rung->plan, p.layer.seconds());
    if (!is_first) of_plan->second = std::min(of_plan->second, p.layer.seconds());
  }
  fmt::print("\n{:<12} {:>6} {:>10} {:>10}   (time of a typical layer; below 1, D is faster)\n", "load", "tokens",
             "D/best A", "D/B");
  for (const auto& [point, seconds] : best) {
    const auto ratio = [&, &of = seconds](Plan plan) {
      return of.contains(Plan::kFoe) && of.contains(plan) ? fmt::format("{:.2f}", of.at(Plan::kFoe) / of.at(plan))
                                                          : "-";
    };
    fmt::print("{:<12} {:>6} {:>10} {:>10}\n", to_string(point.first), point.second, ratio(Plan::kEp),
               ratio(Plan::kTp));
  }
}

nlohmann::json to_json(const LatencyPoint& p) {
  return {{"rung", p.rung},
          {"load", to_string(p.load)},
          {"tokens", p.tokens},
          {"repetitions", p.repetitions},
          {"seconds", p.seconds},
          {"fastest_s", p.fastest},
          {"slowest_s", p.slowest},
          {"ranks", to_json(p.ranks)},
          {"experts", to_json(p.load_report)},
          {"layer",
           {{"attention_s", p.layer.attention},
            {"experts_s", p.layer.experts},
            {"moving_s", p.layer.moving},
            {"waiting_s", p.layer.waiting},
            {"uneven_s", p.layer.uneven},
            {"bytes", p.layer.bytes},
            {"row_balance", p.layer.row_balance}}}};
}

void run_latency(const LatencyFlags& flags) {
  const Shape shape = shape_of(flags);
  const std::unique_ptr<Communicator> comm = make_world_comm({.timeout_seconds = flags.ranks.timeout_s});
  if (flags.skew > 1 && comm->size() == 1)
    fail("--skew: expected 1 (no skew) on one rank, got {}; run it under mpirun -n 2 or more", flags.skew);
  LatencyOptions options{.shape = shape.config,
                         .groups = shape.groups,
                         .dtype = parse_weight_format("--dtype", flags.dtype),
                         .kv_type = parse_kv_type(flags.ranks.kv_dtype),
                         .attention = attention_of(flags.ranks),
                         .rungs = rungs_of(flags.rungs),
                         .loads = {},
                         .tokens = flags.tokens,
                         .repetitions = flags.repetitions,
                         .most_seconds = flags.most_seconds,
                         .threads = threads_of(flags.ranks, local_share(*comm)),
                         .exchange = exchange_of(flags.ranks),
                         .router_bias_E = skewed_router_bias(shape.config, comm->size(), flags.skew)};
  for (const std::string& load : flags.loads) options.loads.push_back(parse_load(load));
  const JsonFile file("--json", comm->rank() == 0 ? flags.json : "");
  if (comm->rank() == 0) print_header(flags, shape, options, comm->size());
  const std::vector<LatencyPoint> points =
      bench_latency(options, *comm, [&](const LatencyPoint& p) { print_point(p, shape.layers); });
  if (comm->rank() != 0) return;
  print_bottom_line(points);
  nlohmann::json out{{"shape", flags.shape},
                     {"layers", shape.config.num_layers()},
                     {"model_layers", shape.layers},
                     {"dtype", flags.dtype},
                     {"kv_dtype", flags.ranks.kv_dtype},
                     {"attention", flags.ranks.attention},
                     {"wire", flags.ranks.wire},
                     {"overlap", options.exchange.overlap},
                     {"skew", flags.skew},
                     {"router_bias", options.router_bias_E.empty() ? 0.0f : options.router_bias_E.front()},
                     {"ranks", comm->size()},
                     {"threads_per_rank", options.threads},
                     {"instruction_set", instruction_set()},
                     {"points", nlohmann::json::array()}};
  for (const LatencyPoint& p : points) out["points"].push_back(to_json(p));
  file.write(out);
}

}  // namespace

void add_latency_command(Command bench) {
  auto flags = std::make_shared<LatencyFlags>();
  flags->ranks.timeout_s = 3600;  // one rank's attention over a long prompt takes minutes, and the others wait for it
  Command latency = bench.subcommand(
      "latency", "Time of a forward pass by its number of tokens, with random weights, for every plan in turn");
  latency.option("--shape", flags->shape, kShapesHelp).show_default();
  latency
      .option("--layers", flags->layers,
              "number of layers that run, at least 2; default: 2, or all layers of a model folder")
      .range(2, 1024);
  latency
      .option("--rungs", flags->rungs,
              "which to compare, as in 'A ep,D foe': A ep, A ep per expert, A ep split, B tp, C tp grouped, D foe, and "
              "those whose"
              " ranks have some layers, so that they need --layers: E pp, and F pp x ep, G pp x foe with two stages;"
              " default: A to D")
      .list()
      .parsed_by([](const std::string& name) { rungs_of({name}); });
  latency
      .option("--loads", flags->loads,
              "kinds of batches: one-prompt, many-prompts (each of at most 128 tokens), decode (each sequence with 256"
              " positions in the KV cache)")
      .list()
      .parsed_by(parse_load)
      .show_default();
  latency.option("--tokens", flags->tokens, "numbers of tokens in a pass").list().range(1, 1 << 20).show_default();
  latency
      .option(
          "--skew", flags->skew,
          "bias the router so that under plan ep the fullest rank gets this many times the rows of the median rank (of"
          " two ranks, of their mean); 1: no bias")
      .number_in(1, 1000)
      .show_default();
  add_random_dtype(latency, flags->dtype);
  add_kv_dtype(latency, flags->ranks.kv_dtype);
  add_attention(latency, flags->ranks.attention);
  add_rank_threads(latency, flags->ranks.threads);
  add_wire_flags(latency, flags->ranks);
  latency.option("--repetitions", flags->repetitions, "passes that are measured for each result")
      .range(1, 1000)
      .show_default();
  latency
      .option("--most-seconds", flags->most_seconds,
              "seconds for each result: if its passes take longer, fewer are measured, and at least one")
      .number_in(0, 1e6)
      .show_default();
  latency
      .option("--timeout", flags->ranks.timeout_s,
              "seconds that a rank waits for another one before it fails and ends the job")
      .number_in(0.1, 86400)
      .show_default();
  latency.option("--json", flags->json, "also write all results to this file");
  latency.runs([flags] { run_latency(*flags); });
}

}  // namespace foe
