// foe convert: writes a model folder anew. Either it quantises the weights once, so that they are mapped at each start
// instead of packed, or it makes a model with groups of an MoE model.
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <fmt/core.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/inherited.h"
#include "base/text_file.h"
#include "commands.h"
#include "common.h"
#include "federate/choices.h"
#include "federate/deal.h"
#include "federate/federate.h"
#include "model/calibrate.h"
#include "tokenizer/gguf_tokenizer_files.h"
#include "tokenizer/tokenizer.h"
#include "weights/config_json.h"
#include "weights/convert.h"
#include "weights/gguf/gguf_shards.h"
#include "weights/identity.h"
#include "weights/model_folder.h"

namespace foe {
namespace {

struct ConvertFlags {
  std::string model, out, quantize;
  std::string calibrate;
  int calibrate_tokens = 16384;
  FederateOptions groups;
  std::string residual = "federated", group_sync = "sum", routes;
  int threads = 0;
};

// Shows progress: on a terminal one line that changes, otherwise a line now and then.
class Progress {
 public:
  explicit Progress(const char* unit = "MB", double of_unit = 1e6) : unit_(unit), of_unit_(of_unit) {}

  void operator()(std::size_t done, std::size_t total) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    if (done < total && seconds_since(last_) < (terminal ? 0.2 : 10)) return;
    last_ = Clock::now();
    fmt::print(stderr, "{}{:.1f} of {:.1f} {}{}", terminal ? "\r" : "", static_cast<double>(done) / of_unit_,
               static_cast<double>(total) / of_unit_, unit_, terminal && done < total ? "" : "\n");
  }

 private:
  const char* unit_;
  double of_unit_;
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

// Returns the token that the tokenizer puts before a text, if it does.
std::optional<std::int32_t> first_token(const Tokenizer& tokenizer) {
  const std::vector<std::int32_t> with = tokenizer.encode("a");
  const std::vector<std::int32_t> without = tokenizer.encode("a", {.add_special_tokens = false});
  if (with.empty() || (!without.empty() && with.front() == without.front())) return std::nullopt;
  return with.front();
}

CalibrationText read_calibration_text(const ConvertFlags& flags, const ModelConfig& config, std::string& source) {
  constexpr std::size_t kMaxText = (std::size_t{1} << 30) - 1;
  const std::string text = read_text_file(flags.calibrate, kMaxText);
  if (!is_gguf_path(flags.model) && !Tokenizer::exists(flags.model))
    fail("expected a model with a tokenizer, got none in {}", flags.model);
  const Tokenizer tokenizer = Tokenizer::of_model(flags.model);
  CalibrationText calibration{tokenizer.encode(text, {.add_special_tokens = false}), first_token(tokenizer),
                              flags.calibrate_tokens};
  tokenizer.check_ids(calibration.tokens, config.vocab_size);
  Digest digest;
  digest.add(text);
  source = fmt::format("at most {} tokens of a text of {} bytes with the XXH64 digest {:016x}", flags.calibrate_tokens,
                       text.size(), digest.value());
  return calibration;
}

// Runs the model over the text.
Importance measure_importance(ThreadPool& pool, const ConvertFlags& flags, const ModelConfig& config,
                              const FormatChoice& formats) {
  const auto int4 = [](const std::optional<WeightFormat>& format) { return format == WeightFormat::kInt4; };
  if (!int4(formats.attention) && !int4(formats.experts) && !int4(formats.head))
    fail("--calibrate: expected --quantize with int4, which is all that a text can improve, got {}", flags.quantize);
  const auto naming_text = [&](const auto& f) {
    try {
      return f();
    } catch (const Error& error) {
      fail("--calibrate: {}: {}", flags.calibrate, error.what());
    }
  };
  std::string source;
  const CalibrationText text = naming_text([&] { return read_calibration_text(flags, config, source); });
  const Model model = load_model(flags.model, default_plan(config), *make_self_comm(),
                                 FormatChoice::all(WeightFormat::kBF16), pool.threads());
  Importance importance = naming_text([&] { return calibrate(model, pool, text, Progress("thousand tokens", 1e3)); });
  importance.source = source;
  return importance;
}

void run_convert(const ConvertFlags& flags) {
  require_one_process("convert");
  if (flags.quantize.empty() == (flags.groups.groups == 0))
    fail("expected --quantize or --groups, got {}; a model in groups can be quantised afterwards",
         flags.quantize.empty() ? "neither" : "both");
  ThreadPool pool(flags.threads > 0 ? flags.threads : available_threads());
  if (flags.groups.groups != 0) return run_federate(pool, flags);
  const ModelConfig config = load_model_config(flags.model);
  const FormatChoice formats = parse_format_choice("--quantize", flags.quantize);
  require_new(flags.out);
  Importance importance;
  if (!flags.calibrate.empty()) importance = measure_importance(pool, flags, config, formats);
  convert_model(pool, flags.model, config, formats, flags.out, Progress(), tokenizer_files(flags.model), importance);
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
  const Option calibrate = command.option(
      "--calibrate", flags->calibrate,
      "text file (UTF-8) like those that the model will read: it is run over it first, and what becomes int4 is rounded"
      " so that errors are small where its activations are large");
  command
      .option("--calibrate-tokens", flags->calibrate_tokens,
              "run so many tokens of it at most, in windows that are spread over the text")
      .range(1, 1 << 30)
      .show_default()
      .needs(calibrate);
  const Option groups =
      command.option("--groups", flags->groups.groups, "make H groups of each layer's heads and experts")
          .range(2, 1024)
          .excludes(calibrate);
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
