// foe bench: measurements that anybody can repeat.
#include "commands.h"

namespace foe {

void add_bench_command(Command app) {
  Command bench =
      app.subcommand("bench", "Benchmarks of a server, the engine, single steps, exchanges between ranks and kernels");
  bench.requires_subcommand();
  add_serve_bench_command(bench);
  add_offline_command(bench);
  add_engine_command(bench);
  add_latency_command(bench);
  add_comm_command(bench);
  add_make_model_command(bench);
  add_kernels_command(bench);
  add_machine_command(bench);
}

}  // namespace foe
