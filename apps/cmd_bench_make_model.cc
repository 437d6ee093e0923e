// foe bench make-model: writes a model folder of a given shape with random weights, for measurements that need a
// folder.
#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "bench/random_model.h"
#include "bench/shapes.h"
#include "commands.h"
#include "core/model_tensors.h"

namespace foe {
namespace {

struct MakeModelFlags {
  std::string out, shape = "paper-1b", form = "foe", dtype = "bf16", tokenizer;
  int layers = 0;
  std::uint64_t seed = 0;
};

ModelConfig config_of(const MakeModelFlags& flags) {
  const Shape shape = load_shape(flags.shape);
  ModelConfig config = shape.config;
  if (flags.layers > 0) set_layers(config, flags.layers);
  return in_groups(std::move(config), flags.form == "moe" ? 1 : shape.groups, flags.form == "foe");
}

void run_make_model(const MakeModelFlags& flags) {
  if (!std::filesystem::exists(flags.tokenizer + "/tokenizer.json"))
    fail("--tokenizer: expected a folder with tokenizer.json, got {}", flags.tokenizer);
  const ModelConfig config = config_of(flags);
  write_random_model(flags.out, config, flags.dtype == "f32" ? DType::kF32 : DType::kBF16, flags.seed, flags.tokenizer);
  fmt::print("{}: {:.2f} M parameters in {}\n", flags.out, static_cast<double>(parameter_count(config)) / 1e6,
             flags.dtype);
}

}  // namespace

void add_make_model_command(Command bench) {
  auto flags = std::make_shared<MakeModelFlags>();
  Command command = bench.subcommand(
      "make-model", "Write a model folder with random weights, to measure a model's shape without its weights");
  command.option("OUT", flags->out, "folder to write, which must not exist yet").required();
  command.option("--shape", flags->shape, kShapesHelp).show_default();
  command.option("--layers", flags->layers, "number of layers; default: all of the shape's").range(1, 1024);
  command
      .option(
          "--form", flags->form,
          "moe: an ordinary Mixture of Experts; grouped: experts are selected group by group; foe: a federated model")
      .one_of({"moe", "grouped", "foe"})
      .show_default();
  command.option("--dtype", flags->dtype, "format of the weights").one_of({"f32", "bf16"}).show_default();
  command
      .option("--tokenizer", flags->tokenizer,
              "model folder whose tokenizer is copied; ids beyond its vocabulary are written as <id>")
      .required();
  command.option("--seed", flags->seed, "seed of the random weights").show_default();
  command.runs([flags] { run_make_model(*flags); });
}

}  // namespace foe
