// foe train: trains a model from a TOML configuration, on one rank or, under mpirun, on several. If it is run again, it
// resumes from the last checkpoint, on any number of ranks.
#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/inherited.h"
#include "comm/rank_lost.h"
#include "commands.h"
#include "common.h"
#include "engine/agreement.h"
#include "engine/processors.h"
#include "kernels/cpu.h"
#include "route_flags.h"
#include "stop_signals.h"
#include "train/config.h"
#include "train/run.h"

namespace foe {
namespace {

struct TrainFlags {
  std::string config, run, data;
  int threads = 0, group_ranks = 1;
  double timeout_s = 600;
  bool evaluate = false;
  RecordFlags record;
};

// What every rank must have in common.
std::vector<Fact> facts_of(const TrainFlags& flags, const train::TrainConfig& config) {
  std::vector<Fact> facts = {{"the version of foe", FOE_VERSION},
                             {"the instruction set", instruction_set(), true},
                             {"run.valid_every", std::to_string(config.valid_every)},
                             {"run.valid_tokens", std::to_string(config.valid_tokens)},
                             {"run.checkpoint_every", std::to_string(config.checkpoint_every)},
                             {"--group-ranks", std::to_string(flags.group_ranks)},
                             {"--evaluate", flags.evaluate ? "on" : "off"},
                             {"--route-trace", flags.record.file.empty() ? "off" : "on"}};
  for (const auto& [key, value] : config.identity) facts.push_back({key, value});
  return facts;
}

void run_train(const TrainFlags& flags) {
  train::TrainConfig config = train::load_train_config(flags.config, flags.data);
  if (!flags.run.empty()) config.run_dir = flags.run;
  const std::unique_ptr<Communicator> comm = make_world_comm({.timeout_seconds = flags.timeout_s});
  // The first two of several ranks say what becomes of the run: mpirun also sends a signal when another rank has died,
  // and then kills this one before it can say more.
  const bool tells = comm->size() > 1 && comm->rank() < 2;
  stop_at_signals(tells ? "foe: all ranks end, after this step if they have time; the same command resumes the run\n"
                        : "");
  if (const std::string note = require_agreement(*comm, facts_of(flags, config)); !note.empty())
    print_error("foe: " + note + "; this changes no result");
  const int threads = flags.threads > 0 ? flags.threads : local_share(*comm).threads;
  const train::RunOptions options{threads,           &stop_requested,         flags.evaluate,   false,
                                  flags.record.file, flags.record.most_bytes, flags.group_ranks};
  try {
    train::run_training(config, options, *comm);
  } catch (const RankLost& error) {
    fail("{}; this ends the run on all ranks: the same command resumes it, on any number of ranks", error.what());
  }
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
  command
      .option("--threads", flags->threads,
              "number of threads of each rank; default: the machine's cores, divided by the ranks on it")
      .range(1, 1024);
  command
      .option("--group-ranks", flags->group_ranks,
              "of a federated model: so many ranks share its groups, and sets of so many the batch; with 1 each rank"
              " has all groups")
      .range(1, 4096)
      .show_default();
  command.option("--timeout", flags->timeout_s, "seconds that ranks wait for each other before the run ends")
      .number_in(1, 86400)
      .show_default();
  const Option evaluate =
      command.flag("--evaluate", flags->evaluate, "train nothing: score the held-out file with the run's checkpoint");
  add_record_flags(command, flags->record, false).excludes(evaluate);
  command.runs([flags] { run_train(*flags); });
}

}  // namespace foe
