// foe bench: measurements that anybody can repeat.
#include <fstream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench_comm.h"
#include "bench_latency.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct LatencyFlags {
  std::string shape = "paper-1b";
  int layers = 3;
  std::vector<std::string> rungs, loads{"one-prompt", "many-prompts", "decode"};
  std::vector<int> tokens{1, 8, 64, 512, 2048};
  std::string dtype = "bf16";
  ModelFlags ranks;  // of these: threads, wire and overlap
  int repetitions = 6;
  double most_seconds = 20;
  std::string json;
};

// The models of the paper (arXiv 2605.06206, section 4): width, heads, experts, k and H; only layers are cut.
ModelConfig paper_shape(int width, int heads, int head_dim, int expert_width) {
  ModelConfig c;
  c.model_type = "foe";
  c.hidden_size = width;
  c.num_attention_heads = heads;
  c.num_key_value_heads = 8;
  c.head_dim = head_dim;
  c.num_experts = 64;
  c.num_experts_per_tok = 8;
  c.moe_intermediate_size = expert_width;
  c.vocab_size = 50304;
  c.max_position_embeddings = 32768;
  c.rope_theta = 500000;
  c.rope_scaling_factor = 16;
  return c;
}

struct Shape {
  ModelConfig config;
  int groups;
  int layers;  // of the whole model
};

Shape shape_of(const LatencyFlags& flags) {
  Shape shape;
  if (flags.shape == "paper-1b")
    shape = {paper_shape(768, 8, 96, 384), 8, 16};
  else if (flags.shape == "paper-7b")
    shape = {paper_shape(2048, 16, 128, 1024), 8, 16};
  else
    shape.config = load_model_config(flags.shape), shape.groups = shape.config.num_key_value_heads,
    shape.layers = shape.config.num_hidden_layers;
  shape.config.num_hidden_layers = flags.layers;
  return shape;
}

std::vector<Rung> rungs_of(const std::vector<std::string>& names) {
  if (names.empty()) return ladder();
  std::vector<Rung> rungs;
  for (const std::string& name : names) {
    const auto found = std::find_if(ladder().begin(), ladder().end(), [&](const Rung& r) { return r.name == name; });
    if (found == ladder().end()) {
      std::string known;
      for (const Rung& r : ladder()) known += (known.empty() ? "'" : ", '") + r.name + "'";
      fail("--rungs: expected some of {}, got '{}'", known, name);
    }
    rungs.push_back(*found);
  }
  return rungs;
}

void print_point(const LatencyPoint& p, int layers) {
  const double ms = 1e3;
  fmt::print(
      "{:<16} {:<12} {:>6} {:>10.2f} {:>9.2f}-{:<9.2f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>10.1f} {:>6.2f} "
      "{:>10.1f}\n",
      p.rung, to_string(p.load), p.tokens, ms * p.seconds, ms * p.fastest, ms * p.slowest, ms * p.attention,
      ms * p.experts, ms * p.moving, ms * p.waiting, p.bytes / 1e3, p.row_balance, ms * p.layer_seconds() * layers);
  std::fflush(stdout);
}

nlohmann::json to_json(const LatencyPoint& p) {
  return {{"rung", p.rung},
          {"load", to_string(p.load)},
          {"tokens", p.tokens},
          {"repetitions", p.repetitions},
          {"seconds", p.seconds},
          {"fastest_s", p.fastest},
          {"slowest_s", p.slowest},
          {"layer",
           {{"attention_s", p.attention},
            {"experts_s", p.experts},
            {"moving_s", p.moving},
            {"waiting_s", p.waiting},
            {"bytes", p.bytes},
            {"row_balance", p.row_balance}}}};
}

void write_json(const std::string& path, const nlohmann::json& json) {
  std::ofstream file(path);
  if (!(file << json.dump(1) << '\n')) fail("--json: cannot write {}", path);
}

void run_latency(const LatencyFlags& flags) {
  const Shape shape = shape_of(flags);
  const std::unique_ptr<Communicator> comm = make_world_comm();
  LatencyOptions options{.shape = shape.config,
                         .groups = shape.groups,
                         .dtype = flags.dtype == "f32" ? DType::kF32 : DType::kBF16,
                         .rungs = rungs_of(flags.rungs),
                         .loads = {},
                         .tokens = flags.tokens,
                         .repetitions = flags.repetitions,
                         .most_seconds = flags.most_seconds,
                         .threads = threads_of(flags.ranks),
                         .exchange = exchange_of(flags.ranks, *comm)};
  for (const std::string& load : flags.loads) options.loads.push_back(parse_load(load));
  if (comm->rank() == 0) {
    fmt::print("{}, {} of {} layers, {} weights, {} ranks, {} threads each, {}; wire {}, {}\n", flags.shape,
               flags.layers, shape.layers, flags.dtype, comm->size(), options.threads, instruction_set(),
               flags.ranks.wire, options.exchange.overlap ? "halves overlap" : "no overlap");
    fmt::print("                                    pass ms                       one layer, mean over ranks, ms\n");
    fmt::print("{:<16} {:<12} {:>6} {:>10} {:>19} {:>9} {:>9} {:>9} {:>9} {:>10} {:>6} {:>10}\n", "rung", "load",
               "tokens", "median", "spread", "attention", "experts", "moving", "waiting", "kB sent", "rows",
               fmt::format("x {}", shape.layers));
  }
  const std::vector<LatencyPoint> points =
      bench_latency(options, *comm, [&](const LatencyPoint& p) { print_point(p, shape.layers); });
  if (comm->rank() != 0 || flags.json.empty()) return;
  nlohmann::json out{{"shape", flags.shape},
                     {"layers", flags.layers},
                     {"model_layers", shape.layers},
                     {"dtype", flags.dtype},
                     {"ranks", comm->size()},
                     {"threads_per_rank", options.threads},
                     {"wire", flags.ranks.wire},
                     {"overlap", options.exchange.overlap},
                     {"instruction_set", instruction_set()},
                     {"points", nlohmann::json::array()}};
  for (const LatencyPoint& p : points) out["points"].push_back(to_json(p));
  write_json(flags.json, out);
}

struct CommFlags {
  std::vector<int> kilobytes{4, 8, 16, 64, 256, 1024, 4096};
  double seconds = 0.5, link_mbit = 0;
  std::string wire = "f32", json;
};

void print_comm_point(const CommPoint& p, double link_mbit) {
  const double us = 1e6;
  fmt::print("{:<11} {:>6} {:>10.1f} {:>9.1f}-{:<9.1f} {:>10.1f} {:>9.1f}-{:<9.1f} {:>6.2f} {:>8.2f}", p.collective,
             p.bytes / 1024, us * p.ours, us * p.ours_low, us * p.ours_high, us * p.mpi, us * p.mpi_low,
             us * p.mpi_high, p.mpi / p.ours, p.least_bytes / p.ours / 1e9);
  if (link_mbit > 0) fmt::print(" {:>6.1f}", 100 * p.least_bytes * 8 / (link_mbit * 1e6) / p.ours);
  fmt::print("\n");
  std::fflush(stdout);
}

void run_comm(const CommFlags& flags) {
  const Wire wire = parse_wire(flags.wire);
  const std::unique_ptr<Communicator> comm = make_world_comm();
  std::vector<std::size_t> sizes;
  for (const int kilobytes : flags.kilobytes) sizes.push_back(std::size_t{1024} * kilobytes);
  if (comm->rank() == 0)
    fmt::print(
        "{} ranks on {} nodes, sums over {}; microseconds of a call, median and 10th to 90th percentile\n{:<11} {:>6} "
        "{:>10} {:>19} {:>10} "
        "{:>19} {:>6} {:>8}{}\n",
        comm->size(), comm->nodes().back() + 1, to_string(wire), "collective", "KB", "ours", "", "MPI", "", "MPI/x",
        "GB/s", flags.link_mbit > 0 ? " % link" : "");
  const auto points =
      bench_comm(*comm, sizes, wire, flags.seconds, [&](const CommPoint& p) { print_comm_point(p, flags.link_mbit); });
  if (comm->rank() != 0 || flags.json.empty()) return;
  nlohmann::json out{{"ranks", comm->size()},
                     {"wire", to_string(wire)},
                     {"link_mbit", flags.link_mbit},
                     {"points", nlohmann::json::array()}};
  for (const CommPoint& p : points)
    out["points"].push_back({{"collective", p.collective},
                             {"bytes", p.bytes},
                             {"repetitions", p.repetitions},
                             {"seconds", p.ours},
                             {"p10_s", p.ours_low},
                             {"p90_s", p.ours_high},
                             {"mpi_s", p.mpi},
                             {"mpi_p10_s", p.mpi_low},
                             {"mpi_p90_s", p.mpi_high},
                             {"least_bytes", p.least_bytes}});
  write_json(flags.json, out);
}

void add_comm_command(CLI::App& bench) {
  auto flags = std::make_shared<CommFlags>();
  CLI::App* comm = bench.add_subcommand("comm", "Each collective alone, by size, beside MPI's own (under mpirun)");
  comm->add_option("--kilobytes", flags->kilobytes, "sizes of the vector, or of one rank's message to another")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 18))
      ->capture_default_str();
  comm->add_option("--wire", flags->wire, "how sums travel: f32, bf16 or int8")->capture_default_str();
  comm->add_option("--seconds", flags->seconds, "for a collective and size, ours and MPI's together")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  comm->add_option("--link-mbit", flags->link_mbit, "rate of the nodes' links, to print the share of it")
      ->check(CLI::Range(0.001, 1e7));
  comm->add_option("--json", flags->json, "also write all points to this file");
  comm->callback([flags] { run_comm(*flags); });
}

void add_latency_command(CLI::App& bench) {
  auto flags = std::make_shared<LatencyFlags>();
  CLI::App* latency = bench.add_subcommand(
      "latency", "Time of a forward pass against its number of tokens, for every plan, with random weights");
  latency->add_option("--shape", flags->shape, "paper-1b, paper-7b, or a model folder for its config.json")
      ->capture_default_str();
  latency->add_option("--layers", flags->layers, "layers that run, at least 3")
      ->check(CLI::Range(3, 1024))
      ->capture_default_str();
  latency->add_option("--rungs", flags->rungs, "some of the ladder's, by name; default: all")->delimiter(',');
  latency->add_option("--loads", flags->loads, "one-prompt, many-prompts (of 128), decode (with 256 positions)")
      ->delimiter(',')
      ->capture_default_str();
  latency->add_option("--tokens", flags->tokens, "tokens in the pass")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  latency->add_option("--dtype", flags->dtype, "of the weights")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  latency->add_option("--threads", flags->ranks.threads, "threads per rank; default: cores divided by ranks")
      ->check(CLI::Range(1, 1024));
  add_wire_flags(*latency, flags->ranks);
  latency->add_option("--repetitions", flags->repetitions, "measured passes of a point")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  latency
      ->add_option("--most-seconds", flags->most_seconds, "a point that takes longer gets fewer passes, at least two")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  latency->add_option("--json", flags->json, "also write all points to this file");
  latency->callback([flags] { run_latency(*flags); });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure");
  bench->require_subcommand(1);
  add_latency_command(*bench);
  add_comm_command(*bench);
}

}  // namespace foe
