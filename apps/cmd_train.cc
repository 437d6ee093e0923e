// foe train: trains a model from a TOML configuration. If it is run again, it resumes from the last checkpoint.
#include <atomic>
#include <csignal>
#include <filesystem>
#include <memory>
#include <string>

#include "base/inherited.h"
#include "base/thread_pool.h"
#include "commands.h"
#include "common.h"
#include "route_flags.h"
#include "train/config.h"
#include "train/run.h"

namespace foe {
namespace {

struct TrainFlags {
  std::string config, run, data;
  int threads = 0;
  bool evaluate = false;
  RecordFlags record;
};

// It is lock-free, so a signal handler may set it.
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// A second signal has its default effect and ends the process at once. Only the steps since the last checkpoint are
// lost.
void request_stop(int signal) {
  stop_requested.store(true, std::memory_order_relaxed);
  std::signal(signal, SIG_DFL);
}

std::string resolve(const std::string& path, const std::filesystem::path& base) {
  return (base / path).string();
}

void run_train(const TrainFlags& flags) {
  require_one_process("train");
  train::TrainConfig config = train::load_train_config(flags.config);
  const std::filesystem::path base =
      flags.data.empty() ? std::filesystem::path(flags.config).parent_path() : std::filesystem::path(flags.data);
  config.tokens = resolve(config.tokens, base);
  config.tokenizer = resolve(config.tokenizer, base);
  if (!flags.run.empty()) config.run_dir = flags.run;
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  if (hangs_up()) std::signal(SIGHUP, request_stop);
  train::run_training(
      config, {flags.threads, &stop_requested, flags.evaluate, false, flags.record.file, flags.record.most_bytes});
}

}  // namespace

void add_train_command(Command app) {
  auto flags = std::make_shared<TrainFlags>();
  Command command = app.subcommand("train", "Train a model from a configuration, or resume a run from its checkpoint");
  command.option("CONFIG", flags->config, "TOML file with the configuration, which docs/training.md describes")
      .required();
  command.option(
      "--run", flags->run,
      "folder of the run, for its checkpoint, metrics.jsonl and model/; default: `dir` in [run] of the configuration");
  command.option("--data", flags->data,
                 "folder that relative paths in [data] start from; default: the configuration's folder");
  command.option("--threads", flags->threads, "number of threads; default: all cores").range(1, 1024);
  const Option evaluate =
      command.flag("--evaluate", flags->evaluate, "train nothing: score the held-out file with the run's checkpoint");
  add_record_flags(command, flags->record, false).excludes(evaluate);
  command.runs([flags] { run_train(*flags); });
}

}  // namespace foe
