// foe generate: streams a continuation of a prompt to the terminal.
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "bench/report.h"
#include "commands.h"
#include "common.h"
#include "engine/sampler.h"
#include "route_flags.h"
#include "tokenizer/tokenizer.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct GenerateFlags {
  ModelFlags model;
  RecordFlags record;
  ReplayFlags replay;
  std::string prompt;
  int max_tokens = 64;
  int draft_tokens = 0;
  SamplingParams sampling;
  bool ignore_eos = false;
  bool stats = false;
  bool json = false;
};

struct Generation {
  std::vector<std::int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kLength;
  double first_token_s = 0;
  double decode_s = 0;
  int decode_steps = 0;
  std::int64_t drafted = 0, accepted = 0;                       // tokens
  std::vector<CommCounters> prefill_counters, decode_counters;  // by rank, up to the first token and from there on
  LoadReport load;

  int decoded() const { return static_cast<int>(tokens.size()) - 1; }
};

Generation generate(Engine& engine, const Tokenizer& tokenizer, const GenerateFlags& flags,
                    std::vector<std::int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = flags.max_tokens;
  if (!flags.ignore_eos) request.stop_ids = tokenizer.end_ids(engine.model().config.eos_token_ids);
  request.sampling = flags.sampling;
  request.route = load_route(flags.replay);
  StreamDecoder decoder(tokenizer);
  decoder.begin_after(request.prompt.tokens());
  engine.submit(std::move(request));
  if (!flags.json) print_now(flags.prompt);

  Generation result;
  const auto show = [&](const std::string& text) {
    result.text += text;
    if (!flags.json) print_now(text);
  };
  auto start = Clock::now();
  for (; !engine.idle(); ++result.decode_steps) {
    for (const TokenEvent& event : engine.step()) {
      if (result.tokens.empty()) {
        result.first_token_s = seconds_since(start);
        result.prefill_counters = engine.collect_counters();
        start = Clock::now();
        result.decode_steps = -1;  // this step does not count
      }
      result.tokens.push_back(event.token);
      if (event.finish) result.finish = *event.finish;
      if (event.finish != FinishReason::kStop) show(decoder.push(event.token));
    }
    if (!engine.failed().empty()) fail(kNotFinite);
  }
  result.decode_s = seconds_since(start);
  show(decoder.finish() + "\n");
  result.text.pop_back();
  result.decode_counters = engine.collect_counters();
  for (std::size_t r = 0; r < result.decode_counters.size(); ++r)
    result.decode_counters[r] = result.decode_counters[r] - result.prefill_counters[r];
  result.drafted = engine.scheduler().stats().drafted_tokens;
  result.accepted = engine.scheduler().stats().accepted_tokens;
  result.load = report_load(engine.model().config, engine.model().placement, engine.collect_load());
  return result;
}

void print_json(const Engine& engine, const Generation& g, std::size_t prompt_tokens) {
  const nlohmann::json out{{"plan", to_string(engine.model().placement.plan)},
                           {"ranks", engine.comm().size()},
                           {"threads_per_rank", engine.threads()},
                           {"text", g.text},
                           {"tokens", g.tokens},
                           {"finish_reason", g.finish == FinishReason::kStop ? "stop" : "length"},
                           {"prompt_tokens", prompt_tokens},
                           {"ttft_s", g.first_token_s},
                           {"decode_s", g.decode_s},
                           {"decode_steps", g.decode_steps},
                           {"drafted_tokens", g.drafted},
                           {"accepted_tokens", g.accepted},
                           {"prefill_counters_by_rank", to_json(g.prefill_counters)},
                           {"decode_counters_by_rank", to_json(g.decode_counters)},
                           {"experts", to_json(g.load)}};
  std::puts(out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void print_times(const Engine& engine, const Generation& g, std::size_t prompt_tokens) {
  fmt::print(stderr, "\n{} ranks, {} threads each, plan {}: {} prompt tokens, first token after {:.1f} ms",
             engine.comm().size(), engine.threads(), to_string(engine.model().placement.plan), prompt_tokens,
             1e3 * g.first_token_s);
  const int tokens = g.decoded();
  if (tokens == 0) return fmt::print(stderr, "\n");
  fmt::print(stderr, ", then {:.2f} ms per token ({:.0f} tokens/s)\n", 1e3 * g.decode_s / tokens, tokens / g.decode_s);
  if (g.drafted > 0)
    fmt::print(stderr, "{} tokens in {} steps: of {} that were guessed, {} were right\n", tokens, g.decode_steps,
               g.drafted, g.accepted);
  fmt::print(stderr, "per decoded token:  exchanges    messages (all ranks)    bytes (all ranks)\n");
  CommCounters all;
  for (const CommCounters& rank : g.decode_counters) all = all + rank;
  for (const Collective& collective : kCollectives) {
    const CommCounter sum = all.*collective.counter;
    const double calls = static_cast<double>((g.decode_counters[0].*collective.counter).calls);
    fmt::print(stderr, "  {:<16}  {:>9.2f}    {:>20.2f}    {:>17.1f}\n", collective.name, calls / tokens,
               static_cast<double>(sum.messages) / tokens, static_cast<double>(sum.bytes) / tokens);
  }
}

void print_stats(const Engine& engine, const Generation& g, std::size_t prompt_tokens) {
  print_times(engine, g, prompt_tokens);
  std::vector<CommCounters> whole;
  for (std::size_t r = 0; r < g.prefill_counters.size(); ++r)
    whole.push_back(g.prefill_counters[r] + g.decode_counters[r]);
  if (whole.size() > 1) print_counters(stderr, whole);
  print_load(stderr, g.load);
}

void run_generate(const GenerateFlags& flags) {
  validate(flags.sampling);
  const Tokenizer tokenizer = Tokenizer::of_model(flags.model.model);
  const ModelConfig config = load_model_config(flags.model.model);
  print_notes(flags.model.model, tokenizer, config);
  std::vector<std::int32_t> prompt = tokenizer.encode(flags.prompt);
  tokenizer.check_ids(prompt, config.vocab_size);
  if (prompt.empty())
    fail("--prompt: expected a text of at least one token, got {} bytes that make none", flags.prompt.size());
  EngineOptions options;
  options.max_sequences = 1;
  options.max_draft = flags.draft_tokens;
  options.kv_tokens = static_cast<int>(prompt.size()) + flags.max_tokens;
  options.record = record_options(flags.record);
  run_on_all_ranks(flags.model, options, [&](Engine& engine) {
    const std::size_t prompt_tokens = prompt.size();
    Generation g;
    run_recorded(engine, flags.record,
                 [&](Engine& recorded) { g = generate(recorded, tokenizer, flags, std::move(prompt)); });
    if (flags.json) print_json(engine, g, prompt_tokens);
    if (flags.stats) print_stats(engine, g, prompt_tokens);
  });
}

}  // namespace

void add_generate_command(Command app) {
  auto flags = std::make_shared<GenerateFlags>();
  Command command = app.subcommand("generate", "Continue a prompt, and print the text as it comes");
  add_model_flags(command, flags->model);
  add_draft_tokens(command, flags->draft_tokens).excludes(add_record_flags(command, flags->record));
  add_replay_flags(command, flags->replay);
  command.option("--prompt", flags->prompt, "text to continue").required().may_be_empty();
  command.option("--max-tokens", flags->max_tokens, "most tokens to generate").range(1, 1 << 24).show_default();
  add_sampling_flags(command, flags->sampling);
  command.flag("--ignore-eos", flags->ignore_eos, "go on past the model's end-of-text token");
  command.flag("--stats", flags->stats, "after the text, print times and what the ranks exchanged to standard error");
  command.flag("--json", flags->json, "print one JSON object at the end instead of streaming the text");
  runs_on_model(command, flags->model.model, [flags] { run_generate(*flags); });
}

}  // namespace foe
