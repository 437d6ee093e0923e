// foe bench serve: sends load to a server with OpenAI's API. The flags and the report are those of `vllm bench serve`.
#include <chrono>
#include <cmath>
#include <cstdlib>
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
#include "bench/report.h"
#include "commands.h"
#include "common.h"
#include "load/serve_report.h"
#include "weights/config_json.h"
#include "weights/model_path.h"
#include "workload_flags.h"

namespace foe {
namespace {

struct ServeBenchFlags {
  WorkloadOptions workload;
  LoadOptions load;
  ReportOptions report;
  std::string base_url, host = "127.0.0.1", model, tokenizer, api_key, extra_body;
  int port = 8000, warmups = 0;
  double ready_s = 0;
  std::vector<double> rates, gaps{0.5};
  double burstiness = 1;
  bool ignore_eos = false;
  nlohmann::json sampling = {{"temperature", 0.0}};  // fields of requests that flags set
  std::vector<std::string> goodput, metadata;
  bool save = false, detailed = false;
  std::string result_dir = ".", result_filename;
};

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

std::string authorization(const ServeBenchFlags& flags) {
  const char* from_environment = std::getenv("OPENAI_API_KEY");
  const std::string key = !flags.api_key.empty() ? flags.api_key : from_environment ? from_environment : "";
  if (key.find_first_of("\r\n") != key.npos)
    fail("--api-key, OPENAI_API_KEY: expected a key of one line, got a line end in it");
  return key.empty() ? "" : fmt::format("Authorization: Bearer {}\r\n", key);
}

// Returns the fields that all requests have, as JSON text.
std::string request_fields(const ServeBenchFlags& flags) {
  nlohmann::json fields = flags.sampling;
  fields["model"] = flags.model;
  fields["stream"] = true;
  fields["stream_options"] = {{"include_usage", true}};
  if (flags.ignore_eos) fields["ignore_eos"] = true;
  if (!flags.extra_body.empty()) {
    const nlohmann::json extra = parse_strict_json(flags.extra_body, "--extra-body");
    if (!extra.is_object()) fail("--extra-body: expected a JSON object, got {}", excerpt(extra));
    fields.update(extra);
  }
  return fields.dump();
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

nlohmann::json asked_json(const ServeBenchFlags& flags, double rate, std::size_t prompts) {
  nlohmann::json out{{"date", fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr)))},
                     {"backend", flags.load.chat ? "openai-chat" : "openai"},
                     {"generator", FOE_VERSION},
                     {"model_id", flags.model},
                     {"tokenizer_id", flags.tokenizer},
                     {"num_prompts", prompts},
                     {"request_rate", std::isinf(rate) ? nlohmann::json("inf") : nlohmann::json(rate)},
                     {"burstiness", flags.burstiness},
                     {"max_concurrency", nullptr},
                     {"dataset", flags.workload.preset.empty() ? flags.workload.dataset : flags.workload.preset},
                     {"seed", flags.workload.seed}};
  if (flags.load.max_concurrency > 0) out["max_concurrency"] = flags.load.max_concurrency;
  for (const std::string& pair : flags.metadata) out[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  return out;
}

// Returns the path of the result. A sweep has a file for each rate.
std::filesystem::path result_path(const ServeBenchFlags& flags, const nlohmann::json& result, double rate) {
  std::filesystem::path name = flags.result_filename;
  if (name.empty()) {
    std::string model = flags.model.substr(flags.model.rfind('/') + 1);
    const std::string limit =
        flags.load.max_concurrency > 0 ? fmt::format("-concurrency{}", flags.load.max_concurrency) : "";
    name = fmt::format("foe-{}qps{}-{}-{}.json", rate_name(rate), limit, model, result["date"].get<std::string>());
  } else if (flags.rates.size() > 1) {
    name.replace_filename(fmt::format("{}-{}qps{}", name.stem().string(), rate_name(rate), name.extension().string()));
  }
  return flags.result_dir / name;
}

LoadRun run_at(double rate, const HttpTarget& target, const ServeBenchFlags& flags, const Workload& workload) {
  const std::size_t n = workload.prompts.size();
  fmt::print("{} requests, {}, burstiness {}, {} at a time\n", n,
             workload.times.empty() ? fmt::format("{} per second", rate_name(rate)) : "when the trace says",
             flags.burstiness,
             flags.load.max_concurrency > 0 ? fmt::format("at most {}", flags.load.max_concurrency) : "any number");
  std::fflush(stdout);
  const std::vector<double> times =
      workload.times.empty() ? arrival_times(n, rate, flags.burstiness, flags.workload.seed) : workload.times;
  const ProgressLine line;
  LoadOptions options = flags.load;
  options.progress_every_s = line.every_s();
  LoadRun run = run_load(target, workload.prompts, times, options, [&](const LoadProgress& p) { line.show(p, n); });
  line.clear();
  return run;
}

void save(const LoadRun& run, const ServeReport& report, double rate, const ServeBenchFlags& flags,
          const Workload& workload) {
  nlohmann::json result = asked_json(flags, rate, workload.prompts.size());
  result["interrupted"] = run.interrupted;
  result.update(to_json(report, flags.report));
  if (flags.detailed) result.update(details_json(run, workload.prompts));
  const std::filesystem::path path = result_path(flags, result, rate);
  std::filesystem::create_directories(path.parent_path());
  write_json("--save-result", path.string(), result);
}

void warm_up(const HttpTarget& target, const ServeBenchFlags& flags, const Workload& workload) {
  const std::vector<WorkloadPrompt> prompts(flags.warmups, workload.prompts.front());
  LoadOptions options = flags.load;
  options.progress_every_s = 0;
  const LoadRun run = run_load(target, prompts, std::vector<double>(prompts.size(), 0.0), options, {});
  if (run.interrupted) fail("interrupted during the warm-up requests: nothing was measured");
  for (const SentRequest& request : run.requests)
    if (!request.completion.ok()) fail("a warm-up request failed: {}", request.completion.error);
}

// Sets the flags whose values follow from others.
void complete_flags(ServeBenchFlags& flags) {
  flags.report.goodput = parse_goodput(flags.goodput);
  if (flags.rates.empty()) {
    flags.rates = {INFINITY};
    if (!flags.workload.preset.empty()) {
      flags.rates.clear();
      for (const double gap : flags.gaps) flags.rates.push_back(1 / (gap * flags.workload.scale));
    }
  }
  flags.load.chat = flags.load.endpoint.ends_with("/chat/completions");
  flags.load.headers = authorization(flags);
  if (flags.detailed) flags.save = true;
  // Like vLLM, because answers to random prompts could end at any time. The paper's answers all have 256 tokens.
  if (!flags.workload.preset.empty() || flags.workload.dataset == "random") flags.ignore_eos = true;
}

void run_serve_bench(ServeBenchFlags flags) {
  const bool paced = !flags.rates.empty();
  complete_flags(flags);
  const HttpTarget target =
      parse_base_url(flags.base_url.empty() ? fmt::format("http://{}:{}", flags.host, flags.port) : flags.base_url);
  Vocabulary vocabulary;
  if (!flags.tokenizer.empty()) {
    flags.tokenizer = find_model(flags.tokenizer);
    vocabulary = load_vocabulary(flags.tokenizer);
    flags.workload.context = load_model_config(flags.tokenizer).max_position_embeddings;
  }
  vocabulary.as_text = flags.load.chat;
  if (flags.model.empty() || flags.ready_s > 0) {
    const ServedModelInfo served = wait_for_server(target, flags);
    if (flags.model.empty()) flags.model = served.id;
    if (flags.workload.context == 0 && flags.model == served.id) flags.workload.context = served.context;
  }
  flags.load.fields = request_fields(flags);
  Workload workload = make_workload(flags.workload, vocabulary);
  if (paced) workload.times.clear();
  if (!workload.times.empty() && workload.times.back() > 0)  // only used to report the rate
    flags.rates = {static_cast<double>(workload.times.size() - 1) / workload.times.back()};
  print_notes(workload);
  warm_up(target, flags, workload);
  std::size_t completed = 0;
  for (const double rate : flags.rates) {
    const LoadRun run = run_at(rate, target, flags, workload);
    const ServeReport report = report_serve(run, workload.prompts, flags.report);
    print_serve_report(stdout, report, flags.report);
    if (flags.save) save(run, report, rate, flags, workload);
    completed += report.completed;
    if (run.interrupted) break;
  }
  if (completed == 0) fail("no request was answered; the report above counts the errors");
}

void add_target_flags(Command command, ServeBenchFlags& flags) {
  command.option("--base-url", flags.base_url, "http://HOST:PORT of the server, instead of --host and --port")
      .parsed_by(parse_base_url);
  command.option("--host", flags.host, "host name or IP address of the server").show_default();
  command.option("--port", flags.port, "TCP port of the server").range(1, 65535).show_default();
  command.option("--endpoint", flags.load.endpoint, "path of the API: /v1/completions or /v1/chat/completions")
      .parsed_by([](const std::string& path) {
        if (!path.starts_with('/') || !path.ends_with("/completions"))
          fail("expected a path that begins with / and ends in /completions, got '{}'", path);
      })
      .show_default();
  command.option("--model", flags.model, "name of the model in requests; default: the first that the server lists");
  command.option("--tokenizer", flags.tokenizer,
                 "model folder: prompts are sent as token ids of its vocabulary; default: random words");
  command.option("--api-key", flags.api_key,
                 "key to send as `Authorization: Bearer KEY`; default: $OPENAI_API_KEY, or none");
  command
      .option("--ready-check-timeout-sec", flags.ready_s,
              "seconds to wait for the server to answer before the run; 0: ask it once")
      .number_in(0, 86400)
      .show_default();
}

void add_pace_flags(Command command, ServeBenchFlags& flags) {
  command
      .option("--request-rate", flags.rates,
              "requests per second; several, as in 1,2,4, run one after the other; inf (the default): all at once")
      .list()
      .number_in(1e-6, INFINITY);
  command
      .option("--gap", flags.gaps,
              "with --preset paper: mean seconds between requests; several run one after the other")
      .list()
      .number_in(1e-6, 86400)
      .show_default();
  command
      .option("--burstiness", flags.burstiness,
              "shape of the gamma distribution of the gaps between requests; 1: Poisson arrivals; larger: more even")
      .number_in(1e-3, 1e6)
      .show_default();
  command
      .option(
          "--max-concurrency", flags.load.max_concurrency,
          "most requests in flight; others wait for an answer, so the load is no longer open loop; default: any number")
      .range(1, 1 << 20);
  command.option("--num-warmups", flags.warmups, "requests that are sent before the run and not counted")
      .range(0, 1 << 20)
      .show_default();
  command
      .option("--timeout", flags.load.timeout_s,
              "seconds after which a request counts as failed, from connecting to its last token")
      .number_in(1e-3, 86400)
      .show_default();
}

void add_request_flags(Command command, ServeBenchFlags& flags) {
  command.flag(
      "--ignore-eos", flags.ignore_eos,
      "ask for answers of full length, past the end-of-text token; always on for random prompts and --preset paper");
  for (const char* field :
       {"temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"}) {
    std::string name = std::string("--") + field;
    std::ranges::replace(name, '_', '-');
    const auto set = [&flags, field](double value) {
      if (value == std::floor(value) && std::string_view(field) == "top_k")
        flags.sampling[field] = static_cast<std::int64_t>(value);
      else
        flags.sampling[field] = value;
    };
    command.number(
        name, set,
        fmt::format("{} in each request; default: {}", field, std::string(field) == "temperature" ? "0" : "not sent"));
  }
  command.option("--extra-body", flags.extra_body, "JSON object with further fields for each request");
}

void add_report_flags(Command command, ServeBenchFlags& flags) {
  command
      .option("--percentile-metrics", flags.report.metrics,
              "which latencies to report: ttft (time to first token), tpot (time per output token), itl (inter-token"
              " latency) and e2el (end-to-end latency)")
      .list()
      .one_of({"ttft", "tpot", "itl", "e2el"})
      .show_default();
  command.option("--metric-percentiles", flags.report.percentiles, "percentiles of these latencies to report")
      .list()
      .number_in(0, 100)
      .show_default();
  command
      .option("--goodput", flags.goodput,
              "longest latencies in ms of a request that counts as good, as in ttft:200 tpot:50 e2el:10000")
      .parsed_by([](const std::string& term) { parse_goodput({term}); });
  command.flag("--save-result", flags.save, "write the report as JSON, a file for each rate");
  command.flag("--save-detailed", flags.detailed, "the same, with the latencies, lengths and errors of each request");
  command.option("--result-dir", flags.result_dir, "folder for these files").show_default();
  command.option("--result-filename", flags.result_filename, "name of the file; default: foe-RATEqps-MODEL-DATE.json");
  command.option("--metadata", flags.metadata, "KEY=VALUE, or several, to add to the JSON")
      .parsed_by([](const std::string& pair) {
        if (pair.find('=') == pair.npos) fail("expected KEY=VALUE, got '{}'", pair);
      });
}

}  // namespace

void add_serve_bench_command(Command bench) {
  auto flags = std::make_shared<ServeBenchFlags>();
  Command command = bench.subcommand(
      "serve", "Send requests to a server with OpenAI's API, and report latencies, throughput and goodput");
  add_target_flags(command, *flags);
  add_workload_flags(command, flags->workload);
  add_pace_flags(command, *flags);
  add_request_flags(command, *flags);
  add_report_flags(command, *flags);
  command.runs([flags] { run_serve_bench(*flags); });
}

}  // namespace foe
