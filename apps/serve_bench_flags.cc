#include "serve_bench_flags.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "workload_flags.h"

namespace foe {
namespace {

constexpr const char* kSampling[] = {
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"};
constexpr double kMostRate = 1e6;  // requests per second that a ramp may reach

// Returns the headers that all requests have.
std::string header_lines(const ServeBenchFlags& flags) {
  std::string lines;
  for (const std::string& pair : flags.headers) lines += header_line(pair);
  if (!flags.load.id_prefix.empty() && has_header(lines, "x-request-id"))
    fail("--request-id-prefix: expected no --header X-Request-Id beside it, got one");
  const bool has_key = has_header(lines, "authorization");
  if (has_key && !flags.api_key.empty()) fail("--api-key: expected no --header Authorization beside it, got one");
  const char* from_environment = std::getenv("OPENAI_API_KEY");
  const std::string key = !flags.api_key.empty() ? flags.api_key : from_environment ? from_environment : "";
  if (key.find_first_of("\r\n") != key.npos)
    fail("--api-key, OPENAI_API_KEY: expected a key of one line, got a line end in it");
  return key.empty() || has_key ? lines : lines + "Authorization: Bearer " + key + "\r\n";
}

void check_result_flags(const ResultFlags& flags) {
  if (flags.any()) return;
  const auto refuse = [](bool given, const char* flag) {
    if (given) fail("{}: expected --save-result, --save-detailed or --append-result beside it, got none", flag);
  };
  refuse(!flags.folder.empty(), "--result-dir");
  refuse(!flags.name.empty(), "--result-filename");
  refuse(!flags.label.empty(), "--label");
  refuse(!flags.metadata.empty(), "--metadata");
}

void add_target_flags(Command command, ServeBenchFlags& flags) {
  command.option("--base-url", flags.base_url, "http://HOST:PORT of the server, instead of --host and --port")
      .parsed_by(parse_base_url);
  command.option("--host", flags.host, "host name or IP address of the server").show_default();
  command.option("--port", flags.port, "TCP port of the server").range(1, 65535).show_default();
  command
      .option("--backend", flags.backend,
              "API of the server: openai or vllm (completions), or openai-chat; default: what --endpoint is, or openai")
      .parsed_by([](const std::string& backend) { endpoint_of(backend, ""); });
  command
      .option("--endpoint", flags.endpoint,
              "path of the API; default: /v1/completions or, with --backend openai-chat, /v1/chat/completions")
      .parsed_by([](const std::string& path) {
        if (!path.starts_with('/') || !path.ends_with("/completions"))
          fail("expected a path that begins with / and ends in /completions, got '{}'", path);
      });
  command.option("--model", flags.model, "name of the model; default: the first that the server lists");
  command.option("--served-model-name", flags.fields.model,
                 "name of the model in requests, if reports should have another one (--model)");
  command.option("--tokenizer", flags.tokenizer,
                 "model folder: prompts are sent as token ids of its vocabulary; default: random words");
  command.option("--api-key", flags.api_key,
                 "key to send as `Authorization: Bearer KEY`; default: $OPENAI_API_KEY, or none");
  command
      .option("--header", flags.headers,
              "KEY=VALUE, or several: headers of each request; Authorization replaces that of $OPENAI_API_KEY")
      .parsed_by(header_line);
  command
      .option("--ready-check-timeout-sec", flags.ready_s,
              "seconds to wait for the server to answer before the run; 0: ask it once")
      .number_in(0, 86400)
      .show_default();
}

void add_request_flags(Command command, ServeBenchFlags& flags) {
  command.option("--num-warmups", flags.warmups, "requests that are sent before the run and not counted")
      .range(0, 1 << 20)
      .show_default();
  command
      .option("--timeout", flags.load.timeout_s,
              "seconds after which a request counts as failed, from connecting to its last token")
      .number_in(1e-3, 86400)
      .show_default();
  RequestFields& fields = flags.fields;
  command.flag(
      "--ignore-eos", fields.ignore_eos,
      "ask for answers of full length, past the end-of-text token; always on for random prompts and --preset paper");
  for (const char* field : kSampling) {
    std::string name = std::string("--") + field;
    std::ranges::replace(name, '_', '-');
    command.number(
        name, [&fields, field](double value) { fields.sampling[field] = value; },
        fmt::format("{} in each request; default: {}", field, fields.sampling.contains(field) ? "0" : "not sent"));
  }
  command
      .number(
          "--logprobs", [&fields](double value) { fields.logprobs = static_cast<int>(value); },
          "log-probabilities of so many tokens at each place of an answer, which the server computes and sends")
      .range(0, 1 << 20);
  command.option("--extra-body", fields.extra_body,
                 "JSON object with further fields for each request, which replace those of other flags");
  command
      .option("--request-id-prefix", flags.load.id_prefix,
              "give each request a header X-Request-Id: this and the request's number")
      .parsed_by([](const std::string& prefix) { header_line("X-Request-Id=" + prefix); });
}

void add_result_flags(Command command, ResultFlags& flags) {
  command.flag("--save-result", flags.save, "write the report as a line of JSON, to a file for each rate");
  command.flag("--save-detailed", flags.detailed,
               "the same, with the latencies, lengths, texts and errors of each request");
  command.flag("--append-result", flags.append,
               "add the line to those that the file has; several rates share a file that is named");
  command.option("--result-dir", flags.folder, "folder for these files; default: the current one");
  command.option("--result-filename", flags.name,
                 "name of the file; default: LABEL-RATEqps-MODEL-DATE.json, with the strategy and both rates of a"
                 " ramp");
  command.option("--label", flags.label, "what runs are called in the file and its default name; default: the backend")
      .parsed_by([](const std::string& label) {
        if (label.find('/') != label.npos) fail("expected a part of a file's name, got '{}'", label);
      });
  command.option("--metadata", flags.metadata, "KEY=VALUE, or several, to add to the JSON")
      .parsed_by([](const std::string& pair) {
        if (pair.find('=') == pair.npos) fail("expected KEY=VALUE, got '{}'", pair);
      });
}

}  // namespace

HttpTarget ServeBenchFlags::target() const {
  return parse_base_url(base_url.empty() ? fmt::format("http://{}:{}", host, port) : base_url);
}

void complete_rates(ServeBenchFlags& flags) {
  flags.paced = !flags.rates.empty() || flags.is_ramp();
  const bool paper = !flags.workload.preset.empty();
  if (!flags.gaps.empty() && !paper) fail("--gap: expected --preset paper beside it, got none");
  if (!flags.gaps.empty() && flags.paced)
    fail("--gap: expected no --request-rate and no --ramp-up-strategy beside it, got one");
  if (flags.ramp.start > flags.ramp.end)
    fail("--ramp-up-end-rps: expected at least --ramp-up-start-rps, {}, got {}", flags.ramp.start, flags.ramp.end);
  if (flags.gaps.empty()) flags.gaps = {0.5};
  if (paper && !flags.paced)
    for (const double gap : flags.gaps) flags.rates.push_back(1 / (gap * flags.workload.scale));
  if (flags.rates.empty()) flags.rates = {INFINITY};
  std::vector<double> ascending = flags.rates;
  std::ranges::sort(ascending);
  if (const auto twice = std::ranges::adjacent_find(ascending); twice != ascending.end())
    fail("{}: expected each rate once, got {} requests per second again", paper ? "--gap" : "--request-rate", *twice);
  if (flags.burstiness != 1 && !flags.is_ramp() &&
      std::ranges::all_of(flags.rates, [](double r) { return r == INFINITY; }))
    fail("--burstiness: expected a finite --request-rate or --ramp-up-strategy beside it, got none");
}

void add_pace_flags(Command command, ServeBenchFlags& flags) {
  const Option rates =
      command
          .option("--request-rate", flags.rates,
                  "requests per second; several, as in 1,2,4, run one after the other; inf (the default): all at once")
          .list()
          .number_in(1e-6, INFINITY);
  command
      .option("--gap", flags.gaps,
              "with --preset paper: mean seconds between requests; several run one after the other; default: 0.5")
      .list()
      .number_in(1e-6, 86400);
  const Option strategy = command
                              .option("--ramp-up-strategy", flags.ramp.strategy,
                                      "let the rate grow from request to request, from --ramp-up-start-rps to"
                                      " --ramp-up-end-rps")
                              .one_of({"linear", "exponential"})
                              .excludes(rates);
  const Option start =
      command.option("--ramp-up-start-rps", flags.ramp.start, "requests per second at the first request")
          .number_in(1e-6, kMostRate)
          .needs(strategy);
  const Option end = command.option("--ramp-up-end-rps", flags.ramp.end, "requests per second at the last request")
                         .number_in(1e-6, kMostRate)
                         .needs(strategy);
  strategy.needs(start).needs(end);
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
}

void add_report_flags(Command command, ServeBenchFlags& flags) {
  command
      .option("--percentile-metrics", flags.report.metrics,
              "which latencies to report: ttft (time to first token), tpot (time per output token), itl (inter-token"
              " latency), e2el (end-to-end latency), client_queue_time (how much later than due requests are sent) and"
              " e2el_including_client_queue")
      .list()
      .one_of({"ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue"})
      .show_default();
  command.option("--metric-percentiles", flags.report.percentiles, "percentiles of these latencies to report")
      .list()
      .number_in(0, 100)
      .show_default();
  command
      .option("--goodput", flags.goodput,
              "longest latencies in ms of a request that counts as good, as in ttft:200 tpot:50 e2el:10000")
      .parsed_by([](const std::string& term) { parse_goodput({term}); });
  command.flag("--disable-tqdm", flags.quiet, "show no progress");
}

std::vector<double> rates_of(const ServeBenchFlags& flags, double rate, std::size_t prompts) {
  return flags.is_ramp() ? ramp_up_rates(flags.ramp, prompts) : std::vector<double>(prompts, rate);
}

void add_serve_bench_flags(Command command, ServeBenchFlags& flags) {
  add_target_flags(command, flags);
  add_workload_flags(command, flags.workload);
  command.flag("--disable-shuffle", flags.no_shuffle,
               "send the prompts of sharegpt and longbench in the order of their file");
  add_pace_flags(command, flags);
  add_request_flags(command, flags);
  add_report_flags(command, flags);
  add_result_flags(command, flags.result);
}

void complete_flags(ServeBenchFlags& flags) {
  check_result_flags(flags.result);
  complete_rates(flags);
  const Endpoint endpoint = endpoint_of(flags.backend, flags.endpoint);
  flags.backend = endpoint.backend;
  flags.load.endpoint = endpoint.path;
  flags.load.chat = endpoint.chat;
  flags.load.headers = header_lines(flags);
  flags.load.keep_texts = flags.result.detailed;
  fields_json(flags.fields, flags.load.chat);  // finds now what is wrong with --extra-body
  flags.report.goodput = parse_goodput(flags.goodput);
  flags.workload.shuffled = !flags.no_shuffle;
  // Like vLLM, because answers to random prompts could end at any time. The paper's answers all have 256 tokens.
  if (!flags.workload.preset.empty() || flags.workload.dataset == "random") flags.fields.ignore_eos = true;
}

}  // namespace foe
