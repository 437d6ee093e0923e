// The subcommands of foe. Each function adds one to the command line, which runs when it is chosen.
#pragma once

namespace CLI {
class App;
}

namespace foe {

void add_generate_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_serve_command(CLI::App& app);
void add_bench_command(CLI::App& app);
// The subcommands of `foe bench`.
void add_latency_command(CLI::App& bench);
void add_serve_bench_command(CLI::App& bench);
void add_offline_command(CLI::App& bench);
void add_engine_command(CLI::App& bench);
void add_make_model_command(CLI::App& bench);
void add_kernels_command(CLI::App& bench);
// The rank that `foe serve` launches, which connects to the front end's socket. Not shown in --help.
void add_worker_command(CLI::App& app);

}  // namespace foe
