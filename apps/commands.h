// The subcommands of foe. Each function adds one to the command line, which runs when it is chosen.
#pragma once

#include <string>

#include "base/error.h"
#include "flags.h"

namespace foe {

// Ends the program with another exit status than 1. If the message is empty, what was printed already says why.
class StatusError : public Error {
 public:
  StatusError(int status, const std::string& message) : Error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

void add_generate_command(Command app);
void add_chat_command(Command app);
void add_eval_command(Command app);
void add_logits_command(Command app);
void add_verify_command(Command app);
void add_tokenize_command(Command app);
void add_inspect_command(Command app);
void add_convert_command(Command app);
void add_train_command(Command app);
void add_serve_command(Command app);
void add_simulate_command(Command app);
// The subcommand of `foe simulate` that measures.
void add_simulate_calibrate(Command simulate);
void add_bench_command(Command app);
// The subcommands of `foe bench`.
void add_latency_command(Command bench);
void add_comm_command(Command bench);
void add_serve_bench_command(Command bench);
void add_offline_command(Command bench);
void add_engine_command(Command bench);
void add_make_model_command(Command bench);
void add_kernels_command(Command bench);
void add_machine_command(Command bench);
// The rank that `foe serve` launches, which connects to the front end's socket. Not shown in --help.
void add_worker_command(Command app);

}  // namespace foe
