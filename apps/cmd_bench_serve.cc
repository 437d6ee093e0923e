// foe bench serve: sends load to a server with OpenAI's API. The flags and the report are those of `vllm bench serve`.
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <memory>
#include <thread>
#include <unistd.h>

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "bench/json_file.h"
#include "commands.h"
#include "common.h"
#include "load/spec_decode.h"
#include "serve_bench_flags.h"
#include "weights/config_json.h"
#include "weights/model_path.h"
#include "workload_flags.h"

namespace foe {
namespace {

// What the server reports of its first model.
struct ServedModelInfo {
  std::string id;
  int context = 0;  // 0: it does not report it
};

ServedModelInfo parse_models(const std::string& body) {
  const nlohmann::json parsed = parse_strict_json(body, "/v1/models");
  const nlohmann::json::json_pointer id("/data/0/id"), context("/data/0/max_model_len");
  if (!parsed.contains(id) || !parsed.at(id).is_string())
    fail("/v1/models: expected a list of models, got {}", excerpt(parsed));
  ServedModelInfo info{parsed.at(id).get<std::string>()};
  if (parsed.contains(context) && parsed.at(context).is_number_integer() && parsed.at(context) > 0 &&
      parsed.at(context) < 1 << 30)
    info.context = parsed.at(context).get<int>();
  return info;
}

// Asks the server until it answers, for as long as the flag allows and at least once.
ServedModelInfo wait_for_server(const HttpTarget& target, const ServeBenchFlags& flags) {
  const auto start = Clock::now();
  while (true) {
    try {
      return parse_models(http_get(target, "/v1/models", flags.load.headers, std::max(10.0, flags.ready_s)));
    } catch (const Error&) {
      if (seconds_since(start) >= flags.ready_s) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

// Shows progress: on a terminal one line that changes, otherwise a line now and then.
class ProgressLine {
 public:
  double every_s() const { return terminal_ ? 0.5 : 30; }
  void show(const LoadProgress& p, std::size_t requests) const {
    fmt::print(stderr, "{}{:.0f} s: {} of {} sent, {} in flight, {} ended, {} failed{}", terminal_ ? "\r" : "",
               p.seconds, p.sent, requests, p.in_flight, p.ended, p.failed, terminal_ ? "   " : "\n");
  }
  void clear() const {
    if (terminal_) fmt::print(stderr, "\r{:79}\r", "");
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1;
};

std::string rate_name(double rate) {
  return fmt::format("{:.6g}", rate);
}

nlohmann::json number_or_null(int number) {
  return number > 0 ? nlohmann::json(number) : nlohmann::json();
}
nlohmann::json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::json() : nlohmann::json(text);
}

// Returns what was asked for, as vLLM's results have it and with keys of our own.
nlohmann::json asked_json(const ServeBenchFlags& flags, double rate, const std::string& date, std::size_t prompts) {
  nlohmann::json out{{"date", date},
                     {"endpoint_type", flags.backend},
                     {"backend", flags.backend},
                     {"label", text_or_null(flags.result.label)},
                     {"generator", FOE_VERSION},
                     {"model_id", flags.model},
                     {"tokenizer_id", text_or_null(flags.tokenizer)},
                     {"num_prompts", prompts},
                     {"request_rate", std::isinf(rate) ? nlohmann::json("inf") : nlohmann::json(rate)},
                     {"burstiness", flags.burstiness},
                     {"max_concurrency", number_or_null(flags.load.max_concurrency)},
                     {"dataset", flags.workload.preset.empty() ? flags.workload.dataset : flags.workload.preset},
                     {"seed", flags.workload.seed}};
  if (flags.is_ramp()) {
    out["ramp_up_strategy"] = flags.ramp.strategy;
    out["ramp_up_start_rps"] = flags.ramp.start;
    out["ramp_up_end_rps"] = flags.ramp.end;
  }
  return out;
}

// One of the runs that the flags ask for.
struct Run {
  double rate;
  nlohmann::json asked;
  JsonFile file;
};

// Returns the path of the result, empty if none is asked for.
std::string result_path(const ServeBenchFlags& flags, double rate, const std::string& date) {
  const ResultFlags& result = flags.result;
  if (!result.any()) return "";
  std::filesystem::path name = result.name;
  if (name.empty()) {
    const std::string rates = flags.is_ramp() ? fmt::format("ramp-up-{}-{}qps-{}", flags.ramp.strategy,
                                                            rate_name(flags.ramp.start), rate_name(flags.ramp.end))
                                              : rate_name(rate);
    const int most = flags.load.max_concurrency;
    name = fmt::format("{}-{}qps{}-{}-{}.json", result.label.empty() ? flags.backend : result.label, rates,
                       most > 0 ? fmt::format("-concurrency{}", most) : "",
                       flags.model.substr(flags.model.rfind('/') + 1), date);
  } else if (flags.rates.size() > 1 && !result.append) {
    name.replace_filename(fmt::format("{}-{}qps{}", name.stem().string(), rate_name(rate), name.extension().string()));
  }
  const std::filesystem::path path = result.folder / name;
  std::error_code error;
  if (!path.parent_path().empty()) std::filesystem::create_directories(path.parent_path(), error);
  if (error) fail("--result-dir: expected to make {}, got: {}", path.parent_path().string(), error.message());
  return path.string();
}

// A key that the result has anyway would lose one of its two values.
void add_metadata(const ServeBenchFlags& flags, nlohmann::json& asked) {
  nlohmann::json others = asked;
  others.update(to_json(report_serve({}, {}, flags.report), flags.report));
  others.update(requests_json({}, {}, true));
  others.update(to_json(SpecDecodeCounts{}));
  for (const char* key : {"interrupted", "rps_change_events"}) others[key] = nullptr;
  for (const std::string& pair : flags.result.metadata) {
    const std::string key = pair.substr(0, pair.find('='));
    if (others.contains(key)) fail("--metadata: expected a KEY that the result does not have itself, got '{}'", key);
    others[key] = nullptr;
    asked[key] = pair.substr(pair.find('=') + 1);
  }
}

// Returns the runs. Whatever can be wrong with the files of their results is found here.
std::vector<Run> plan_runs(const ServeBenchFlags& flags, std::size_t prompts) {
  const std::string date = fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr)));
  const JsonStyle style = flags.result.append ? JsonStyle::kAddedLine : JsonStyle::kLine;
  std::vector<Run> runs;
  for (const double rate : flags.rates) {
    nlohmann::json asked = asked_json(flags, rate, date, prompts);
    add_metadata(flags, asked);
    const std::string flag = flags.result.append ? "--append-result" : "--save-result";
    runs.push_back({rate, std::move(asked), JsonFile(flag, result_path(flags, rate, date), style)});
  }
  return runs;
}

std::string pace_of(const Run& run, const ServeBenchFlags& flags, const Workload& workload) {
  if (!workload.times.empty()) return "when the trace says";
  const std::string rate = rate_name(run.rate) + " per second";
  if (!flags.is_ramp()) return fmt::format("{}, burstiness {}", rate, flags.burstiness);
  return fmt::format("{} to {} per second, growing {}, burstiness {}", rate_name(flags.ramp.start),
                     rate_name(flags.ramp.end), flags.ramp.strategy == "linear" ? "linearly" : "exponentially",
                     flags.burstiness);
}

LoadRun run_it(const Run& run, const HttpTarget& target, const ServeBenchFlags& flags, const Workload& workload) {
  const std::size_t n = workload.prompts.size();
  const int most = flags.load.max_concurrency;
  fmt::print("{} requests, {}, {} at a time\n", n, pace_of(run, flags, workload),
             most > 0 ? fmt::format("at most {}", most) : "any number");
  std::fflush(stdout);
  const std::vector<double> times =
      workload.times.empty() ? arrival_times(rates_of(flags, run.rate, n), flags.burstiness, flags.workload.seed)
                             : workload.times;
  const ProgressLine line;
  LoadOptions options = flags.load;
  options.progress_every_s = flags.quiet ? 0 : line.every_s();
  LoadRun load = run_load(target, workload.prompts, times, options, [&](const LoadProgress& p) { line.show(p, n); });
  if (!flags.quiet) line.clear();
  return load;
}

// Returns nothing for a server without such metrics.
std::optional<SpecDecodeCounts> ask_spec_decode(const HttpTarget& target, const ServeBenchFlags& flags) {
  try {
    return read_spec_decode(http_get(target, "/metrics", flags.load.headers, 10));
  } catch (const Error&) {
    return {};
  }
}

void save(const Run& run, const LoadRun& load, const ServeReport& report,
          const std::optional<SpecDecodeCounts>& guessed, const ServeBenchFlags& flags, const Workload& workload) {
  if (!flags.result.any()) return;
  nlohmann::json result = run.asked;
  result["interrupted"] = load.interrupted;
  result.update(to_json(report, flags.report));
  if (guessed) result.update(to_json(*guessed));
  result.update(requests_json(load, workload.prompts, flags.result.detailed));
  if (flags.is_ramp())
    result["rps_change_events"] = rate_changes_json(load, rates_of(flags, run.rate, workload.prompts.size()));
  run.file.write(result);
}

void warm_up(const HttpTarget& target, const ServeBenchFlags& flags, const Workload& workload) {
  const std::vector<WorkloadPrompt> prompts(flags.warmups, workload.prompts.front());
  LoadOptions options = flags.load;
  options.progress_every_s = 0;
  options.id_prefix.clear();
  const LoadRun run = run_load(target, prompts, std::vector<double>(prompts.size(), 0.0), options, {});
  if (run.interrupted) fail("interrupted during the warm-up requests: nothing was measured");
  for (const SentRequest& request : run.requests)
    if (!request.completion.ok()) fail("a warm-up request failed: {}", request.completion.error);
}

// Sets what follows from the server: the model's name and context.
void ask_server(const HttpTarget& target, ServeBenchFlags& flags) {
  std::string& in_requests = flags.fields.model;
  if (flags.model.empty()) flags.model = in_requests;
  if (flags.model.empty() || flags.ready_s > 0) {
    const ServedModelInfo served = wait_for_server(target, flags);
    if (flags.model.empty()) flags.model = served.id;
    if (flags.workload.context == 0 && (in_requests.empty() ? flags.model : in_requests) == served.id)
      flags.workload.context = served.context;
  }
  if (in_requests.empty()) in_requests = flags.model;
}

Workload workload_of(ServeBenchFlags& flags, const Vocabulary& vocabulary) {
  Workload workload = make_workload(flags.workload, vocabulary);
  if (flags.paced) workload.times.clear();
  if (!workload.times.empty() && workload.times.back() > 0)  // only used to report the rate
    flags.rates = {static_cast<double>(workload.times.size() - 1) / workload.times.back()};
  print_notes(workload);
  return workload;
}

void run_serve_bench(ServeBenchFlags flags) {
  complete_flags(flags);
  const HttpTarget target = flags.target();
  Vocabulary vocabulary;
  if (!flags.tokenizer.empty()) {
    flags.tokenizer = find_model(flags.tokenizer);
    vocabulary = load_vocabulary(flags.tokenizer);
    flags.workload.context = load_model_config(flags.tokenizer).max_position_embeddings;
  }
  vocabulary.as_text = flags.load.chat;
  ask_server(target, flags);
  const nlohmann::json fields = fields_json(flags.fields, flags.load.chat);
  flags.load.fields = fields.dump();
  flags.load.length_in_fields = has_length(fields);
  const Workload workload = workload_of(flags, vocabulary);
  const std::vector<Run> runs = plan_runs(flags, workload.prompts.size());
  warm_up(target, flags, workload);
  std::size_t completed = 0;
  for (const Run& run : runs) {
    const std::optional<SpecDecodeCounts> before = ask_spec_decode(target, flags);
    const LoadRun load = run_it(run, target, flags, workload);
    const auto guessed = counted_between(before, before ? ask_spec_decode(target, flags) : std::nullopt);
    const ServeReport report = report_serve(load, workload.prompts, flags.report);
    print_serve_report(stdout, report, flags.report);
    if (guessed) print_spec_decode(stdout, *guessed);
    save(run, load, report, guessed, flags, workload);
    completed += report.completed;
    if (load.interrupted) break;
  }
  if (completed == 0) fail("no request was answered; the report above counts the errors");
}

}  // namespace

void add_serve_bench_command(Command bench) {
  auto flags = std::make_shared<ServeBenchFlags>();
  Command command = bench.subcommand(
      "serve", "Send requests to a server with OpenAI's API, and report latencies, throughput and goodput");
  add_serve_bench_flags(command, *flags);
  command.runs([flags] { run_serve_bench(*flags); });
}

}  // namespace foe
