// foe worker: one rank of the job that `foe serve` launches.
#include <csignal>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <sys/prctl.h>

#include "base/digest.h"
#include "base/text_file.h"
#include "commands.h"
#include "common.h"
#include "server/ranks/worker.h"
#include "tokenizer/tokenizer_json.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct WorkerFlags {
  ModelFlags model;
  EngineOptions engine;
  WorkerOptions worker;
};

void run_worker(WorkerFlags& flags) {
  // The parent is mpirun or the front end. If it dies, this rank is killed, because nobody else would end it.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (flags.engine.kv_tokens == 0)
    flags.engine.kv_tokens = default_kv_tokens(load_model_config(flags.model.model),
                                               parse_kv_type(flags.model.kv_dtype), flags.engine.max_sequences);
  flags.worker.kv_tokens = flags.engine.kv_tokens;
  flags.worker.max_batch_tokens = flags.model.chunk;
  flags.engine.warms_up = true;
  run_on_all_ranks(flags.model, flags.engine, [&](Engine& engine) {
    const std::string tokenizer = flags.model.model + "/tokenizer.json";
    engine.allow_constraints(
        std::make_shared<TokenTable>(Tokenizer::load(tokenizer), engine.model().config.vocab_size));
    Digest digest;
    digest.add(engine.model().identity + model_config_json(engine.model().config) +
               read_text_file(tokenizer, kMaxTokenizerFileBytes));
    flags.worker.identity = fmt::format("{:016x}", digest.value());
    serve_front_end(engine, flags.worker);
  });
}

}  // namespace

void add_worker_command(CLI::App& app) {
  auto flags = std::make_shared<WorkerFlags>();
  CLI::App* command = app.add_subcommand("worker", "One rank of `foe serve`")->group("");
  add_model_flags(*command, flags->model);
  command->add_option("--socket", flags->worker.socket_path)->required();
  command->add_option("--max-sequences", flags->engine.max_sequences)->check(CLI::Range(1, 4096));
  command->add_option("--kv-tokens", flags->engine.kv_tokens)->check(CLI::Range(16, 1 << 30));
  command->add_option("--hang-timeout", flags->worker.hang_timeout_s)->check(number_in(0.1, 86400));
  command->callback([flags] { run_worker(*flags); });
}

}  // namespace foe
