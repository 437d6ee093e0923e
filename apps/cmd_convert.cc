// foe convert: writes a model folder anew. Either it quantises the weights once, so that they are mapped at each start
// instead of packed, or it makes a model with groups of an MoE model.
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <fmt/core.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/inherited.h"
#include "commands.h"
#include "common.h"
#include "federate/choices.h"
#include "federate/deal.h"
#include "federate/federate.h"
#include "tokenizer/gguf_tokenizer_files.h"
#include "weights/config_json.h"
#include "weights/convert.h"
#include "weights/gguf/gguf_shards.h"
#include "weights/identity.h"
#include "weights/model_folder.h"

namespace foe {
namespace {

struct ConvertFlags {
  std::string model, out, quantize;
  FederateOptions groups;
  std::string residual = "federated", group_sync = "sum", routes;
  int threads = 0;
};

// Shows progress: on a terminal one line that changes, otherwise a line now and then.
class Progress {
 public:
  void operator()(std::size_t written, std::size_t total) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    if (written < total && seconds_since(last_) < (terminal ? 0.2 : 10)) return;
    last_ = Clock::now();
    fmt::print(stderr, "{}{:.1f} of {:.1f} MB{}", terminal ? "\r" : "", written / 1e6, total / 1e6,
               terminal && written < total ? "" : "\n");
  }

 private:
  Clock::time_point last_ = Clock::now();
};

// Of a GGUF file; those of a folder are copied.
std::map<std::string, std::string> tokenizer_files(const std::string& model) {
  if (!is_gguf_path(model)) return {};
  try {
    return gguf_tokenizer_files(model);
  } catch (const Error& error) {
    print_error(fmt::format(
        "foe: the tokenizer is not written, so the folder needs the files of the original model: {}", error.what()));
    return {};
  }
}

// The choices of tokens beyond K / H in a group, of all choices, and their share of the weight.
std::string percents(const Choices& choices, const std::vector<int>& group_E, int groups) {
  const Lost sum = lost(choices, group_E, groups);
  const double all = static_cast<double>(choices.tokens()) * choices.per_token();
  return fmt::format("{:8.2f} % {:8.2f} %", 100 * static_cast<double>(sum.choices) / all,
                     100 * static_cast<double>(sum.weight) / static_cast<double>(total_weight(choices)));
}

std::vector<int> as_they_stand(int experts, int groups) {
  std::vector<int> group_E(experts);
  for (int e = 0; e < experts; ++e) group_E[e] = e / (experts / groups);
  return group_E;
}

// Returns the experts of each layer, group by group: by the record of routes, or as they stand.
std::vector<std::vector<int>> deal(ThreadPool& pool, const ConvertFlags& flags, const ModelConfig& config) {
  const int groups = flags.groups.groups, layers = config.num_layers();
  std::vector<std::vector<int>> groups_LE;
  for (int l = 0; l < layers; ++l) groups_LE.push_back(as_they_stand(config.experts(l).count, groups));
  if (!flags.routes.empty()) {
    const TensorFile file(flags.routes);
    const std::vector<Choices> choices_L =
        choices_of(RouteFile(file.bytes(), flags.routes), config, model_identity(pool, TensorFolder(flags.model)));
    pool.parallel_for(choices_L.size(), [&](std::size_t l) { groups_LE[l] = deal_experts(choices_L[l], groups); });
    fmt::print("                 {}\n", flags.groups.federation == Federation::kDelayed
                                            ? "choices that are not even over groups (all stay), and their weight"
                                            : "choices that change, and their weight");
    fmt::print("layer   tokens   experts as they stand    as they are dealt\n");
    for (int l = 0; l < layers; ++l) {
      const Choices& choices = choices_L[l];
      fmt::print("{:<7} {:<8} {}    {}\n", l, choices.tokens(),
                 percents(choices, as_they_stand(choices.experts(), groups), groups),
                 percents(choices, groups_LE[l], groups));
    }
  }
  std::vector<std::vector<int>> experts_LE;
  for (const std::vector<int>& group_E : groups_LE) experts_LE.push_back(experts_by_group(group_E, groups));
  return experts_LE;
}

FederateOptions federate_options(const ConvertFlags& flags) {
  FederateOptions options = flags.groups;
  for (const Federation federation : {Federation::kShared, Federation::kFederated, Federation::kDelayed})
    if (flags.residual == to_string(federation)) options.federation = federation;
  options.sync = flags.group_sync == to_string(GroupSync::kMean) ? GroupSync::kMean : GroupSync::kSum;
  return options;
}

void run_federate(ThreadPool& pool, ConvertFlags flags) {
  flags.groups = federate_options(flags);
  if (is_gguf_path(flags.model)) fail("--groups: expected a model folder, got the GGUF file {}", flags.model);
  require_new(flags.out);
  const ModelConfig from = load_model_config(flags.model), to = federated_config(from, flags.groups);
  write_federated(pool, flags.model, from, to, deal(pool, flags, from), flags.out, Progress());
}

void run_convert(const ConvertFlags& flags) {
  require_one_process("convert");
  if (flags.quantize.empty() == (flags.groups.groups == 0))
    fail("expected --quantize or --groups, got {}; a model in groups can be quantised afterwards",
         flags.quantize.empty() ? "neither" : "both");
  ThreadPool pool(flags.threads > 0 ? flags.threads : available_threads());
  if (flags.groups.groups != 0) return run_federate(pool, flags);
  convert_model(pool, flags.model, load_model_config(flags.model), parse_format_choice("--quantize", flags.quantize),
                flags.out, Progress(), tokenizer_files(flags.model));
}

}  // namespace

void add_convert_command(Command app) {
  auto flags = std::make_shared<ConvertFlags>();
  Command command = app.subcommand(
      "convert",
      "Write a model folder anew: with quantised weights, which every later start maps into memory as they are, or as a"
      " model with groups (docs/converting.md)");
  add_model(command, flags->model, "; in f32, f16 or bf16, or (--quantize) a GGUF file of any types");
  command.option("OUT", flags->out, "folder to write, which must not exist yet").required();
  add_quantize(command, flags->quantize);
  const Option groups =
      command.option("--groups", flags->groups.groups, "make H groups of each layer's heads and experts")
          .range(2, 1024);
  command
      .option("--residual", flags->residual,
              "with --groups: federated (FoE), shared (grouped routing alone) or delayed (one sum, experts selected"
              " across groups)")
      .one_of({"federated", "shared", "delayed"})
      .show_default()
      .needs(groups);
  command.option("--group-sync", flags->group_sync, "how a federated model adds up its groups: sum or mean")
      .one_of({"sum", "mean"})
      .show_default()
      .needs(groups);
  command
      .option("--routes", flags->routes,
              "deal experts to groups by this record of the model's routes (foe eval --route-trace); default: as they"
              " stand")
      .needs(groups);
  command.option("--threads", flags->threads, "number of threads; default: all cores").range(1, 1024);
  runs_on_model(command, flags->model, [flags] { run_convert(*flags); });
}

}  // namespace foe
