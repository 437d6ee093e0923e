// foe: one program, with one subcommand per file. The exit status is 0, 1 for a failure, or 2 for bad usage.
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

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
  foe::CommandLine line(
      "foe", "foe: serves and trains Mixture-of-Experts and Federation-of-Experts language models", FOE_VERSION,
      "`foe COMMAND --help` shows a command's flags. Under `mpirun -n N foe COMMAND ...` the ranks share the model.");
  foe::add_serve_command(line.root());
  foe::add_generate_command(line.root());
  foe::add_train_command(line.root());
  foe::add_tokenize_command(line.root());
  foe::add_inspect_command(line.root());
  foe::add_convert_command(line.root());
  foe::add_logits_command(line.root());
  foe::add_bench_command(line.root());
  foe::add_worker_command(line.root());
  try {
    foe::require_cpu();
    const int status = line.run(argc, argv);
    if (status != 0) return status;
    foe::finish_output();
    return 0;
  } catch (const std::bad_alloc&) {
    return fail("expected more memory than the system gives (see ulimit -v, the container's limit, --kv-tokens)");
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
