// foe convert: quantises a model folder once, so that it is mapped at each start instead of packed.
#include <memory>
#include <unistd.h>

#include <fmt/core.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/inherited.h"
#include "commands.h"
#include "common.h"
#include "tokenizer/gguf_tokenizer_files.h"
#include "weights/config_json.h"
#include "weights/convert.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

struct ConvertFlags {
  std::string model, out, quantize;
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

void run_convert(const ConvertFlags& flags) {
  require_one_process("convert");
  ThreadPool pool(flags.threads > 0 ? flags.threads : available_threads());
  convert_model(pool, flags.model, load_model_config(flags.model), parse_format_choice("--quantize", flags.quantize),
                flags.out, Progress(), tokenizer_files(flags.model));
}

}  // namespace

void add_convert_command(Command app) {
  auto flags = std::make_shared<ConvertFlags>();
  Command command = app.subcommand(
      "convert", "Write a model folder with quantised weights, which every later start maps into memory as they are");
  add_model(command, flags->model, "; in f32, f16 or bf16, or a GGUF file of any types");
  command.option("OUT", flags->out, "folder to write, which must not exist yet").required();
  add_quantize(command, flags->quantize).required();
  command.option("--threads", flags->threads, "number of threads; default: all cores").range(1, 1024);
  runs_on_model(command, flags->model, [flags] { run_convert(*flags); });
}

}  // namespace foe
