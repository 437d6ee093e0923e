// foe: one binary, one subcommand per file. Exit status 0, 1 for a failure, 2 for bad usage.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <CLI/CLI.hpp>

#include "comm/communicator.h"
#include "commands.h"
#include "kernels/cpu.h"

int main(int argc, char** argv) {
  CLI::App app("foe: serves and trains Mixture-of-Experts and Federation-of-Experts language models", "foe");
  app.set_version_flag("--version", FOE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "`foe COMMAND --help` shows a command's flags. Under `mpirun -n N foe COMMAND ...` the ranks share the model.");
  foe::add_serve_command(app);
  foe::add_generate_command(app);
  foe::add_train_command(app);
  foe::add_tokenize_command(app);
  foe::add_inspect_command(app);
  foe::add_convert_command(app);
  foe::add_logits_command(app);
  foe::add_bench_command(app);
  foe::add_worker_command(app);
  try {
    foe::require_cpu();
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    std::fprintf(stderr, "foe%s%s: %s\n", rank ? " rank " : "", rank ? rank : "", error.what());
    foe::abort_world(1);
    return 1;
  }
}
