// foe eval: how well a model predicts a text, and answers multiple-choice tasks.
#include <cmath>
#include <functional>
#include <memory>
#include <numbers>
#include <numeric>
#include <optional>
#include <unistd.h>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/text_file.h"
#include "bench/json_file.h"
#include "commands.h"
#include "common.h"
#include "eval/scored_text.h"
#include "eval/task.h"
#include "route_flags.h"
#include "server/ranks/worker.h"
#include "stop_signals.h"
#include "text/tokenizer_config.h"
#include "tokenizer/tokenizer.h"
#include "weights/config_json.h"
#include "weights/gguf/gguf_chat.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

struct EvalFlags {
  ModelFlags model;
  EngineOptions engine;
  RecordFlags record;
  std::string text, tokens;
  int window = 0, stride = 0;  // 0: by the model's context
  std::vector<std::string> tasks;
  int limit = 0, max_length = 0;  // 0: all questions, the model's context
  bool add_bos = false;
  std::optional<std::int64_t> prefix;
  std::string json;
};

struct TaskFile {
  std::string name, path;
};

TaskFile parse_task_file(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals + 1 == text.size()) fail("expected TASK=FILE, got '{}'", text);
  check_task_name(text.substr(0, equals));
  return {text.substr(0, equals), text.substr(equals + 1)};
}

// --- what is asked for, before the model is loaded ---

struct TextWork {
  std::vector<std::int32_t> tokens;  // one before the text, and those of the text
  std::size_t bytes = 0;
  int window = 0, stride = 0;

  std::size_t scored() const { return tokens.size() - 1; }
};

struct TaskWork {
  Task task;
  std::vector<ScoredTokens> choices;  // those of all questions, one question after the other
  std::size_t truncated = 0;          // of these, how many lost the beginning of their context
};

struct Work {
  std::optional<TextWork> text;
  std::vector<TaskWork> tasks;
};

constexpr std::size_t kMaxText = std::size_t{1} << 30;

// Returns the token that stands before a text: the tokenizer's BOS, or else what ends a text.
std::int32_t prefix_token(const EvalFlags& flags, const Tokenizer& tokenizer, const ModelConfig& config) {
  if (flags.prefix) {
    if (*flags.prefix < 0 || *flags.prefix >= config.vocab_size)
      fail("--prefix-token: expected an id in [0, {}), got {}", config.vocab_size, *flags.prefix);
    return static_cast<std::int32_t>(*flags.prefix);
  }
  const std::string& model = flags.model.model;
  const nlohmann::json special = is_gguf_path(model) ? gguf_tokenizer_config(model) : load_tokenizer_config(model);
  if (const auto bos = special_token_text(special, "bos_token"))
    if (const auto id = tokenizer.token_to_id(*bos)) return *id;
  const std::vector<std::int32_t> ends = tokenizer.end_ids(config.eos_token_ids);
  if (ends.empty())
    fail("{}: expected a token that begins or ends a text, got neither: give one with --prefix-token", model);
  return ends.front();
}

TextWork prepare_text(const EvalFlags& flags, const Tokenizer& tokenizer, const ModelConfig& config) {
  TextWork work;
  std::vector<std::int32_t>& tokens = work.tokens;
  if (!flags.text.empty()) {
    const std::string text = read_text_file(flags.text, kMaxText - 1);
    tokens = tokenizer.encode(text, {.add_special_tokens = false});
    if (tokens.empty())
      fail("--text: expected a text of at least one token, got {} bytes in {}", text.size(), flags.text);
    work.bytes = text.size();
  } else {
    tokens = parse_tokens("--tokens", flags.tokens);
    work.bytes = tokenizer.decode(tokens).size();
  }
  tokenizer.check_ids(tokens, config.vocab_size);
  const int most = config.max_position_embeddings - 1;
  work.window = flags.window > 0 ? flags.window : most;
  if (work.window > most)
    fail("--window: expected at most {}, one less than the model's context, got {}", most, work.window);
  work.stride = flags.stride > 0 ? flags.stride : std::max(1, work.window / 2);
  if (work.stride >= work.window)
    fail("--stride: expected less than the window of {} tokens, got {}", work.window, work.stride);
  tokens.insert(tokens.begin(), prefix_token(flags, tokenizer, config));
  return work;
}

TaskWork prepare_task(const EvalFlags& flags, const TaskFile& file, const Tokenizer& tokenizer,
                      const ModelConfig& config) {
  TaskWork work{load_task(file.name, file.path), {}};
  std::vector<Question>& questions = work.task.questions;
  if (flags.limit > 0 && questions.size() > static_cast<std::size_t>(flags.limit)) questions.resize(flags.limit);
  const int length = flags.max_length > 0 ? flags.max_length : config.max_position_embeddings;
  if (length > config.max_position_embeddings)
    fail("--max-length: expected at most the model's context of {}, got {}", config.max_position_embeddings, length);
  for (const Question& q : questions)
    for (const std::string& choice : q.choices) {
      // One token of the context is kept for the token that the engine adds, as in lm-evaluation-harness.
      const ScoredTokens& scored = work.choices.emplace_back(
          encode_choice(tokenizer, q.context, kDelimiter + choice, length - 1, flags.add_bos));
      tokenizer.check_ids(scored.tokens, config.vocab_size);
      work.truncated += scored.dropped > 0;
    }
  return work;
}

Work prepare(const EvalFlags& flags, const ModelConfig& config) {
  if (flags.text.empty() && flags.tokens.empty() && flags.tasks.empty())
    fail("expected something to evaluate: --text FILE, --tokens IDS, or --task TASK=FILE");
  const Tokenizer tokenizer = Tokenizer::of_model(flags.model.model);
  print_notes(flags.model.model, tokenizer, config);
  Work work;
  if (!flags.text.empty() || !flags.tokens.empty()) work.text = prepare_text(flags, tokenizer, config);
  for (const std::string& text : flags.tasks) {
    const TaskFile file = parse_task_file(text);
    for (const TaskWork& other : work.tasks)
      if (other.task.name == file.name) fail("--task: expected each task once, got {} twice", file.name);
    work.tasks.push_back(prepare_task(flags, file, tokenizer, config));
  }
  return work;
}

// --- running it ---

struct Stopped {};

class EvalProgress {
 public:
  EvalProgress(std::string what, std::size_t total) : what_(std::move(what)), total_(total) {}

  void done(std::size_t count) {
    const bool terminal = isatty(STDERR_FILENO) != 0;
    if (count < total_ && seconds_since(printed_) < (terminal ? 0.5 : 10)) return;
    printed_ = Clock::now();
    const double seconds = seconds_since(start_);
    fmt::print(stderr, "{}{}: {} of {} sequences, {:.0f} s{}", terminal ? "\r\033[K" : "", what_, count, total_,
               seconds, terminal && count < total_ ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  std::string what_;
  std::size_t total_;
  Clock::time_point start_ = Clock::now(), printed_ = start_;
};

// An engine, and what it is given at a time.
struct Scorer {
  Engine& engine;
  std::size_t ahead;         // sequences that are submitted and have not ended
  std::int64_t next_id = 0;  // a record of routes knows sequences by their number
};

// Returns the sum of the log-probabilities of the scored tokens of each of `count` sequences. Sequences that follow
// each other and begin alike share what the engine has cached of them.
std::vector<double> score(Scorer& scorer, std::size_t count, const std::function<ScoredTokens(std::size_t)>& sequence,
                          const std::string& what) {
  Engine& engine = scorer.engine;
  const std::int64_t first_id = scorer.next_id;
  std::vector<double> sums(count);
  EvalProgress progress(what, count);
  std::size_t submitted = 0, done = 0;
  while (done < count) {
    for (; submitted < count && submitted < done + scorer.ahead; ++submitted) {
      ScoredTokens scored = sequence(submitted);
      Request request;
      request.id = scorer.next_id++;
      request.prompt = std::move(scored.tokens);
      request.max_tokens = 1;
      request.sampling.prompt_logprobs = 0;
      request.sampling.prompt_logprobs_from = scored.from;
      engine.submit(std::move(request));
    }
    for (const TokenEvent& event : engine.step()) {
      double& sum = sums[event.id - first_id];
      for (const LogprobEntry& entry : event.prompt) sum += entry.logprob;
      ++done;
    }
    if (!engine.failed().empty()) fail(kNotFinite);
    if (stop_requested && done < count) {
      for (std::int64_t id = first_id; id < scorer.next_id; ++id) engine.abort(id);
      throw Stopped();
    }
    progress.done(done);
  }
  return sums;
}

// --- results ---

nlohmann::json to_json(const Accuracy& accuracy) {
  return {{"mean", accuracy.mean}, {"stderr", accuracy.error}};  // NaN becomes null
}

nlohmann::json evaluate_text(Scorer& scorer, const TextWork& work) {
  const std::vector<Window> windows = sliding_windows(work.tokens.size(), work.window, work.stride);
  const auto sequence = [&](std::size_t i) {
    const auto begin = work.tokens.begin() + static_cast<std::ptrdiff_t>(windows[i].begin);
    const auto end = work.tokens.begin() + static_cast<std::ptrdiff_t>(windows[i].end);
    return ScoredTokens{{begin, end}, static_cast<int>(windows[i].from - windows[i].begin)};
  };
  const std::vector<double> sums = score(scorer, windows.size(), sequence, "text");
  const double nats = -std::accumulate(sums.begin(), sums.end(), 0.0);
  const double per_token = nats / static_cast<double>(work.scored());
  const double bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(work.bytes);
  fmt::print("{} tokens of {} bytes, windows of {} tokens that move by {}\n", work.scored(), work.bytes, work.window,
             work.stride);
  fmt::print("  bits per byte      {:.6f}\n  nats per token     {:.6f}\n  perplexity         {:.4f}\n", bits_per_byte,
             per_token, std::exp(per_token));
  return {{"tokens", work.scored()},
          {"bytes", work.bytes},
          {"window", work.window},
          {"stride", work.stride},
          {"nats", nats},
          {"nats_per_token", per_token},
          {"perplexity", std::exp(per_token)},
          {"bits_per_byte", bits_per_byte}};
}

nlohmann::json evaluate_task(Scorer& scorer, const TaskWork& work) {
  const Task& task = work.task;
  const std::vector<double> sums = score(
      scorer, work.choices.size(), [&](std::size_t i) { return work.choices[i]; }, task.name);
  std::vector<Choice> choices;
  nlohmann::json items = nlohmann::json::array();
  auto at = sums.begin();
  for (const Question& q : task.questions) {
    const auto end = at + static_cast<std::ptrdiff_t>(q.choices.size());
    const Choice& choice = choices.emplace_back(choose(q, {at, end}));
    at = end;
    items.push_back({{"answer", q.answer},
                     {"acc", choice.best},
                     {"acc_norm", choice.by_characters},
                     {"acc_bytes", choice.by_bytes},
                     {"loglikelihoods", choice.loglikelihoods}});
  }
  nlohmann::json out{{"questions", task.questions.size()},
                     {"repeated", task.repeated},
                     {"truncated", work.truncated},
                     {"items", std::move(items)}};
  fmt::print("{:<10} {:>6} questions", task.name, task.questions.size());
  const auto add = [&](const char* name, int Choice::*chosen) {
    const Accuracy value = accuracy(task.questions, choices, chosen);
    out[name] = to_json(value);
    fmt::print("   {} {:.4f}", name, value.mean);
    if (std::isfinite(value.error)) fmt::print(" +- {:.4f}", value.error);  // one question has no error
  };
  add("acc", &Choice::best);
  if (task.by_length) {
    add("acc_norm", &Choice::by_characters);
    add("acc_bytes", &Choice::by_bytes);
  }
  fmt::print("\n");
  if (task.repeated > 0)
    fmt::print(stderr, "{}: {} questions are there before; they count\n", task.name, task.repeated);
  return out;
}

void run_eval(EvalFlags flags) {
  const ModelConfig config = load_model_config(flags.model.model);
  const Work work = prepare(flags, config);
  if (flags.engine.kv_tokens == 0)
    flags.engine.kv_tokens = default_kv_tokens(config, parse_kv_type(flags.model.kv_dtype), flags.engine.max_sequences);
  // Rows of logits for most of a step's tokens, in at most 64 MiB.
  constexpr std::int64_t kRowBytes = std::int64_t{64} << 20;
  flags.engine.max_sampled =
      static_cast<int>(std::min<std::int64_t>(flags.model.chunk, kRowBytes / (4 * config.vocab_size)));
  flags.engine.record = record_options(flags.record);
  stop_at_signals();
  bool stopped = false;
  run_on_all_ranks(flags.model, flags.engine, [&](Engine& engine) {
    const JsonFile file("--json", flags.json);
    nlohmann::json out{{"model", flags.model.model}};
    run_recorded(engine, flags.record, [&](Engine& recorded) {
      Scorer scorer{recorded, 2 * static_cast<std::size_t>(flags.engine.max_sequences)};
      try {
        if (work.text) out["text"] = evaluate_text(scorer, *work.text);
        for (const TaskWork& task : work.tasks) out["tasks"][task.task.name] = evaluate_task(scorer, task);
      } catch (const Stopped&) {
        stopped = true;
      }
    });
    if (!stopped) file.write(out);
  });
  if (stopped) fail("stopped by a signal: what is printed is whole, the rest was not evaluated");
}

}  // namespace

void add_eval_command(Command app) {
  auto flags = std::make_shared<EvalFlags>();
  Command command = app.subcommand(
      "eval", "Score a model: bits per byte and perplexity of a text, accuracy on multiple-choice tasks");
  add_model_flags(command, flags->model);
  add_record_flags(command, flags->record);
  const Option text = command.option("--text", flags->text, "text file whose tokens are scored, each once");
  command.option("--tokens", flags->tokens, "the same for token ids, as in 1,2,3, or @FILE with such a list")
      .excludes(text);
  command
      .option("--window", flags->window,
              "tokens that the model sees at a time, those that are scored included; default: its context less one")
      .range(2, 1 << 30);
  command
      .option("--stride", flags->stride,
              "how many tokens each window scores, the first one excepted; default: half a window")
      .range(1, 1 << 30);
  command
      .option("--prefix-token", flags->prefix,
              "token before the text; default: the one that begins a text, or else that ends one")
      .number_in(0, 2147483647);
  command
      .option("--task", flags->tasks,
              "TASK=FILE, may be given several times: arc_easy, boolq, copa, hellaswag, piqa or sciq, and a JSON or"
              " JSONL file in the format in which it is published (docs/evaluation.md)")
      .repeats()
      .parsed_by([](const std::string& value) { parse_task_file(value); });
  command.option("--limit", flags->limit, "score only so many questions of each task").range(1, 1 << 30);
  command
      .option("--max-length", flags->max_length,
              "longer questions lose their beginning, down to one token less than this; default: the model's context")
      .range(3, 1 << 30);
  command.flag("--add-bos-token", flags->add_bos,
               "let the tokenizer add its special tokens to questions (lm-evaluation-harness: add_bos_token)");
  command.option("--max-sequences", flags->engine.max_sequences, "most sequences in one batch")
      .range(1, 4096)
      .show_default();
  add_kv_tokens(command, flags->engine.kv_tokens);
  command.option("--json", flags->json, "also write the results to this file, those of each question included");
  runs_on_model(command, flags->model.model, [flags] { run_eval(*flags); });
}

}  // namespace foe
