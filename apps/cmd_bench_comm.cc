// foe bench comm: each collective alone, beside MPI's own.
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "bench/comm.h"
#include "bench/json_file.h"
#include "commands.h"
#include "common.h"

namespace foe {
namespace {

struct CommFlags {
  std::vector<int> kilobytes{4, 8, 16, 64, 256, 1024, 4096};
  double seconds = 0.5, link_mbit = 0;
  std::string wire = "f32", json;
};

// A limit is zero if there is none, or if it is not known.
struct CommLimits {
  double link_mbit, read_bytes_per_s;
};

void print_comm_header(const Communicator& comm, Wire wire, const CommLimits& limits) {
  fmt::print("{} ranks on {} nodes, sums over {}; microseconds of a call, median and 10th to 90th percentile\n",
             comm.size(), comm.nodes().back() + 1, to_string(wire));
  if (limits.read_bytes_per_s > 0)
    fmt::print("% memory: of {:.1f} GB/s, read by as many threads now; more than 100 where caches hold what is sent\n",
               limits.read_bytes_per_s / 1e9);
  fmt::print("{:<11} {:>6} {:>10} {:>19} {:>10} {:>19} {:>6} {:>8}{}{}\n", "collective", "KB", "ours", "", "MPI", "",
             "MPI/x", "GB/s", limits.link_mbit > 0 ? " % link" : "", limits.read_bytes_per_s > 0 ? " % memory" : "");
}

void print_comm_point(const CommPoint& p, const CommLimits& limits) {
  const double us = 1e6;
  fmt::print("{:<11} {:>6} {:>10.1f} {:>9.1f}-{:<9.1f} {:>10.1f} {:>9.1f}-{:<9.1f} {:>6.2f} {:>8.2f}", p.collective,
             p.bytes / 1024, us * p.ours, us * p.ours_low, us * p.ours_high, us * p.mpi, us * p.mpi_low,
             us * p.mpi_high, p.mpi / p.ours, p.least_bytes / p.ours / 1e9);
  if (limits.link_mbit > 0) fmt::print(" {:>6.1f}", 100 * p.least_bytes * 8 / (limits.link_mbit * 1e6) / p.ours);
  if (limits.read_bytes_per_s > 0) fmt::print(" {:>8.1f}", 100 * p.read_bytes / limits.read_bytes_per_s / p.ours);
  fmt::print("\n");
  std::fflush(stdout);
}

void run_comm(const CommFlags& flags) {
  const Wire wire = parse_wire(flags.wire);
  const std::unique_ptr<Communicator> comm = make_world_comm();
  std::vector<std::size_t> sizes;
  for (const int kilobytes : flags.kilobytes) sizes.push_back(std::size_t{1024} * kilobytes);
  CommLimits limits{flags.link_mbit, 0};
  const JsonFile file("--json", comm->rank() == 0 ? flags.json : "");
  if (comm->rank() == 0) {
    if (comm->nodes().back() == 0) limits.read_bytes_per_s = memory_limit(*comm);
    print_comm_header(*comm, wire, limits);
  }
  const auto points =
      bench_comm(*comm, sizes, wire, flags.seconds, [&](const CommPoint& p) { print_comm_point(p, limits); });
  if (comm->rank() != 0) return;
  nlohmann::json out{{"ranks", comm->size()},
                     {"wire", to_string(wire)},
                     {"link_mbit", limits.link_mbit},
                     {"read_bytes_per_second", limits.read_bytes_per_s},
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
                             {"least_bytes", p.least_bytes},
                             {"read_bytes", p.read_bytes}});
  file.write(out);
}

}  // namespace

void add_comm_command(Command bench) {
  auto flags = std::make_shared<CommFlags>();
  Command comm = bench.subcommand(
      "comm",
      "Time of each collective by message size, beside MPI's own, and as a share of the memory's or the link's speed");
  comm.option("--kilobytes", flags->kilobytes,
              "sizes in KiB: of the vector that is summed or broadcast, or of one rank's message to another")
      .list()
      .range(1, 1 << 18)
      .show_default();
  comm.option("--wire", flags->wire, "number format in which sums are sent")
      .one_of({"f32", "bf16", "int8"})
      .show_default();
  comm.option("--seconds", flags->seconds,
              "seconds of measurement for each collective and size, foe's and MPI's together")
      .number_in(0, 3600)
      .show_default();
  comm.option("--link-mbit", flags->link_mbit,
              "speed of the link between the machines in Mbit/s, to print what share of it is reached")
      .number_in(0.001, 1e7);
  comm.option("--json", flags->json, "also write all results to this file");
  comm.runs([flags] { run_comm(*flags); });
}

}  // namespace foe
