// foe: one program, with one subcommand per file. The exit status is 0, 1 for a failure, or 2 for bad usage.
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include <CLI/CLI.hpp>

#include "base/inherited.h"
#include "comm/communicator.h"
#include "commands.h"
#include "kernels/cpu.h"

namespace {

// Prints the reason of a failure, and ends all ranks of the job.
int fail(const std::string& reason) {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  foe::print_error(std::string("foe") + (rank ? std::string(" rank ") + rank : "") + ": " + reason);
  foe::abort_world(1);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  foe::mend_inherited_state();
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
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (app.exit(error) != 0) return 2;
    }
    foe::finish_output();
    return 0;
  } catch (const std::bad_alloc&) {
    return fail("expected more memory than the system gives (see ulimit -v, the container's limit, --kv-tokens)");
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
