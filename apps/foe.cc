// foe: one program, with one subcommand per file. The exit status is 0, 1 for a failure, or 2 for bad usage.
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "base/inherited.h"
#include "comm/communicator.h"
#include "commands.h"
#include "kernels/cpu.h"
#include "kernels/instruction_limit.h"

namespace {

// Prints the reason of a failure, and ends all ranks of the job.
int fail(const std::string& reason, int status = 1) {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (!reason.empty())
    foe::print_error(std::string("foe") + (rank ? std::string(" rank ") + rank : "") + ": " + reason);
  foe::abort_world(status);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  foe::mend_inherited_state();
  foe::CommandLine line(
      "foe", "foe: serves and trains Mixture-of-Experts and Federation-of-Experts language models", FOE_VERSION,
      "`foe COMMAND --help` shows a command's flags. `foe serve` starts its ranks itself. `train`, "
      "`chat`, `generate`,\n"
      "`eval`, `logits`, `verify`, and `bench` with `offline`, `engine`, `latency` or `comm` run on N ranks under "
      "`mpirun -n N foe COMMAND ...`.");
  foe::add_serve_command(line.root());
  foe::add_chat_command(line.root());
  foe::add_generate_command(line.root());
  foe::add_eval_command(line.root());
  foe::add_train_command(line.root());
  foe::add_tokenize_command(line.root());
  foe::add_inspect_command(line.root());
  foe::add_convert_command(line.root());
  foe::add_logits_command(line.root());
  foe::add_verify_command(line.root());
  foe::add_simulate_command(line.root());
  foe::add_bench_command(line.root());
  foe::add_worker_command(line.root());
  try {
    foe::require_cpu();
    constexpr const char* kVariable = "FOE_INSTRUCTION_SET";
    if (const char* set = std::getenv(kVariable); set && *set) foe::limit_instruction_set(set, kVariable);
    const int status = line.run(argc, argv);
    if (status != 0) return status;
    foe::finish_output();
    return 0;
  } catch (const std::bad_alloc&) {
    return fail(
        "out of memory: the system gives no more; raise the limit (ulimit -v, the container's), or use more ranks, a"
        " smaller --kv-tokens or --quantize");
  } catch (const foe::StatusError& error) {
    return fail(error.what(), error.status());
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
