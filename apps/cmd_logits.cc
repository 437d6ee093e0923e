// foe logits: writes the logits of every position of a token sequence to a safetensors file, to compare with other
// implementations.
#include <algorithm>
#include <memory>

#include "base/error.h"
#include "commands.h"
#include "common.h"
#include "model/routes.h"
#include "route_flags.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

struct LogitsFlags {
  ModelFlags model;
  RecordFlags record;
  ReplayFlags replay;
  std::string tokens;
  std::string output;
};

// Runs the tokens as one sequence, in steps of at most `chunk`, by this route unless it is null; returns [T, V].
std::vector<float> all_logits(Engine& engine, const std::vector<std::int32_t>& tokens, int chunk,
                              const SequenceRoute* route) {
  const ModelConfig& config = engine.model().config;
  if (tokens.size() > static_cast<std::size_t>(config.max_position_embeddings))
    fail("--tokens: expected at most the model's context of {}, got {}", config.max_position_embeddings, tokens.size());
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= config.vocab_size)
      fail("--tokens: expected ids in [0, {}), got {}", config.vocab_size, token);
  if (route) check_route(*route, config, engine.model().identity, tokens);
  std::vector<std::int32_t> blocks((tokens.size() + kKvBlock - 1) / kKvBlock);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::int32_t>(i);
  std::vector<float> logits_TV;
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    Batch batch;
    const std::size_t count = std::min<std::size_t>(chunk, tokens.size() - at);
    batch.add_sequence({tokens.data() + at, count}, static_cast<int>(at), blocks, Batch::Sample::kAll, 0,
                       static_cast<int>(tokens.size()));
    if (route) batch.route_last_sequence(route->route);
    const std::span<const float> logits = engine.run(batch);
    logits_TV.insert(logits_TV.end(), logits.begin(), logits.end());
  }
  return logits_TV;
}

void run_logits(const LogitsFlags& flags) {
  const std::vector<std::int32_t> tokens = parse_tokens("--tokens", flags.tokens);
  EngineOptions options;
  options.kv_tokens = static_cast<int>(tokens.size());
  options.max_sampled = std::min<int>(flags.model.chunk, static_cast<int>(tokens.size()));
  options.record = record_options(flags.record);
  run_on_all_ranks(flags.model, options, [&](Engine& engine) {
    const std::shared_ptr<const SequenceRoute> route = load_route(flags.replay);
    std::vector<float> logits;
    run_recorded(engine, flags.record,
                 [&](Engine& recorded) { logits = all_logits(recorded, tokens, flags.model.chunk, route.get()); });
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(tokens.size()), engine.model().config.vocab_size};
    write_tensor_file(flags.output, {float_source("logits", DType::kF32, shape, logits)});
  });
}

}  // namespace

void add_logits_command(Command app) {
  auto flags = std::make_shared<LogitsFlags>();
  flags->model.kv_dtype = "f32";  // as in the implementations that it is compared with
  Command command = app.subcommand(
      "logits",
      "Write the logits of every position of a token sequence to a file, to compare them with other programs");
  add_model_flags(command, flags->model);
  add_record_flags(command, flags->record);
  add_replay_flags(command, flags->replay);
  command.option("--tokens", flags->tokens, "token ids, as in 1,2,3, or @FILE with such a list").required();
  command
      .option("--output", flags->output,
              "safetensors file to write, with one tensor `logits`: f32 [tokens, vocabulary]")
      .required();
  runs_on_model(command, flags->model.model, [flags] { run_logits(*flags); });
}

}  // namespace foe
