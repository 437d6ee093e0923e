// foe simulate calibrate: writes the cluster file of the machines that this job runs on.
#include <memory>

#include <fmt/core.h>

#include "base/error.h"
#include "bench/calibrate.h"
#include "commands.h"
#include "common.h"
#include "kernels/cpu.h"
#include "weights/atomic_file.h"

namespace foe {
namespace {

struct CalibrateFlags {
  std::string out, shape = "paper-1b", dtype = "bf16";
  ModelFlags ranks;  // only kv_dtype, attention and threads are used
  double seconds = 0.5;
};

void run_calibrate(const CalibrateFlags& flags) {
  const std::unique_ptr<Communicator> comm = make_world_comm({.timeout_seconds = 600});
  if (comm->rank() == 0) require_writable(flags.out);
  const CalibrateOptions options{.shape = load_shape(flags.shape),
                                 .dtype = parse_weight_format("--dtype", flags.dtype),
                                 .kv_type = parse_kv_type(flags.ranks.kv_dtype),
                                 .attention = attention_of(flags.ranks),
                                 .threads = threads_of(flags.ranks, local_share(*comm)),
                                 .seconds = flags.seconds};
  if (options.shape.config.dense()) fail("--shape: expected a model with experts, got the dense {}", flags.shape);
  Cluster cluster =
      calibrate(options, *comm, [](const std::string& what) { fmt::print(stderr, "measuring: {}\n", what); });
  if (comm->rank() != 0) return;
  cluster.name = fmt::format("{} ranks of {} threads, {}, {} in {}", comm->size(), options.threads, instruction_set(),
                             flags.shape, flags.dtype);
  const std::string text = to_toml(cluster);
  parse_cluster(text, flags.out);  // what was measured may be no cluster
  write_text_file(flags.out, text);
  fmt::print("{}", text);
}

}  // namespace

void add_simulate_calibrate(Command simulate) {
  auto flags = std::make_shared<CalibrateFlags>();
  Command command = simulate.subcommand(
      "calibrate",
      "Measure this job's machines, and write the cluster file that describes them; under mpirun -n N for"
      " what is between ranks");
  command.option("OUT", flags->out, "file to write").required();
  command.option("--shape", flags->shape, "shape whose products and attention are measured").show_default();
  add_random_dtype(command, flags->dtype);
  add_kv_dtype(command, flags->ranks.kv_dtype);
  add_attention(command, flags->ranks.attention);
  add_rank_threads(command, flags->ranks.threads);
  command.option("--seconds", flags->seconds, "of measurement for each result").number_in(0.01, 60).show_default();
  command.runs([flags] { run_calibrate(*flags); });
}

}  // namespace foe
