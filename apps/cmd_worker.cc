// foe worker: one rank of the job that `foe serve` launches.
#include <csignal>
#include <memory>

#include <fmt/core.h>
#include <sys/prctl.h>

#include "base/digest.h"
#include "commands.h"
#include "common.h"
#include "route_flags.h"
#include "server/ranks/worker.h"
#include "tokenizer/tokenizer.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct WorkerFlags {
  ModelFlags model;
  RecordFlags record;
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
  flags.engine.record = record_options(flags.record);
  run_on_all_ranks(flags.model, flags.engine, [&](Engine& engine) {
    const Tokenizer tokenizer = Tokenizer::of_model(flags.model.model);
    engine.allow_constraints(std::make_shared<TokenTable>(tokenizer, engine.model().config.vocab_size));
    Digest digest;
    digest.add(engine.model().identity + model_config_json(engine.model().config) + tokenizer.digest());
    flags.worker.identity = fmt::format("{:016x}", digest.value());
    std::optional<RouteWriter> routes;  // of a record that the front end has begun and finishes
    if (!flags.record.file.empty())
      routes.emplace(flags.record.file, engine.route_form(), route_origin(engine.model()), flags.record.most_bytes);
    flags.worker.routes = routes ? &*routes : nullptr;
    serve_front_end(engine, flags.worker);
  });
}

}  // namespace

void add_worker_command(Command app) {
  auto flags = std::make_shared<WorkerFlags>();
  Command command = app.hidden_subcommand("worker", "One rank of `foe serve`");
  add_model_flags(command, flags->model);
  add_draft_tokens(command, flags->engine.max_draft).excludes(add_record_flags(command, flags->record));
  command.option("--socket", flags->worker.socket_path).required();
  command.option("--max-sequences", flags->engine.max_sequences).range(1, 4096);
  command.option("--kv-tokens", flags->engine.kv_tokens).range(16, 1 << 30);
  command.option("--hang-timeout", flags->worker.hang_timeout_s).number_in(0.1, 86400);
  command.runs([flags] { run_worker(*flags); });
}

}  // namespace foe
