#include "load/serve_report.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <numeric>

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "load/arrivals.h"

namespace foe {
namespace {

constexpr double kMs = 1e3;
constexpr std::size_t kErrorsKept = 10;

// Returns nothing for an answer of one token, which has no time per further token.
std::optional<double> tpot_of(const Completion& c) {
  if (c.output_tokens() < 2) return {};
  return (c.latency - c.ttft) / (c.output_tokens() - 1);
}

bool is_good(const Completion& c, const Goodput& limits) {
  const auto within = [](double seconds, const std::optional<double>& ms) { return !ms || kMs * seconds <= *ms; };
  return within(c.ttft, limits.ttft) && within(tpot_of(c).value_or(0), limits.tpot) && within(c.latency, limits.e2el);
}

int input_tokens_of(const SentRequest& request, const std::vector<WorkloadPrompt>& prompts) {
  return request.completion.prompt_tokens.value_or(prompts[request.prompt].tokens);
}

// Returns the most events with tokens in one second of those since the first completed request was sent.
double peak_tokens_per_s(const std::vector<SentRequest>& requests) {
  double first = INFINITY;
  for (const SentRequest& request : requests)
    if (request.completion.ok()) first = std::min(first, request.sent);
  std::map<std::int64_t, std::size_t> by_second;
  for (const SentRequest& request : requests) {
    const Completion& c = request.completion;
    if (!c.ok()) continue;
    double at = request.sent - first + c.ttft;
    ++by_second[static_cast<std::int64_t>(at)];
    for (const double itl : c.itls) ++by_second[static_cast<std::int64_t>(at += itl)];
  }
  std::size_t most = 0;
  for (const auto& [second, tokens] : by_second) most = std::max(most, tokens);
  return static_cast<double>(most);
}

void count_failure(const Completion& c, ServeReport& report) {
  ++report.failed;
  ++report.failures[std::to_string(c.status)];
  if (!c.retry_after.empty()) ++report.retry_after[c.retry_after];
  if (report.errors.contains(c.error) || report.errors.size() < kErrorsKept) ++report.errors[c.error];
}

std::string percentile_name(double percent) {
  return fmt::format("{}", percent);
}

std::string joined(const std::map<std::string, std::size_t>& counts) {
  std::string text;
  for (const auto& [what, count] : counts) text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", count, what);
  return text;
}

template <typename T>
void print_line(std::FILE* out, const std::string& label, const T& value) {
  if constexpr (std::is_floating_point_v<T>)
    fmt::print(out, "{:<40} {:<10.2f}\n", label + ":", value);
  else
    fmt::print(out, "{:<40} {:<10}\n", label + ":", value);
}

void print_distribution(std::FILE* out, const ReportMetric& metric, const Distribution& d,
                        const ReportOptions& options) {
  const char* name = metric.name;
  fmt::print(out, "{:-^50}\n", metric.title);
  print_line(out, fmt::format("Mean {} (ms)", name), d.mean);
  print_line(out, fmt::format("Median {} (ms)", name), d.median);
  for (std::size_t i = 0; i < d.percentiles.size(); ++i)
    print_line(out, fmt::format("P{} {} (ms)", percentile_name(options.percentiles[i]), name), d.percentiles[i]);
}

}  // namespace

Goodput parse_goodput(const std::vector<std::string>& terms) {
  Goodput goodput;
  for (const std::string& term : terms) {
    const std::size_t colon = term.find(':');
    const std::string name = term.substr(0, colon);
    std::optional<double>* limit = name == "ttft"   ? &goodput.ttft
                                   : name == "tpot" ? &goodput.tpot
                                   : name == "e2el" ? &goodput.e2el
                                                    : nullptr;
    double ms = -1;
    const char* const end = term.data() + term.size();
    const bool is_number = colon != term.npos && std::from_chars(term.data() + colon + 1, end, ms).ptr == end;
    if (limit == nullptr || !is_number || !(ms >= 0) || std::isinf(ms))
      fail("expected ttft:MS, tpot:MS or e2el:MS, got '{}'", term);
    *limit = ms;
  }
  return goodput;
}

double percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (sorted[below + 1] - sorted[below]) * (place - static_cast<double>(below));
}

Distribution distribution_of(std::vector<double> values, const std::vector<double>& percentiles) {
  Distribution d;
  std::ranges::sort(values);
  if (!values.empty()) {
    const auto n = static_cast<double>(values.size());
    d.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double squares = 0;
    for (const double value : values) squares += (value - d.mean) * (value - d.mean);
    d.std = std::sqrt(squares / n);
  }
  d.median = percentile(values, 50);
  for (const double percent : percentiles) d.percentiles.push_back(percentile(values, percent));
  return d;
}

ServeReport report_serve(const LoadRun& run, const std::vector<WorkloadPrompt>& prompts, const ReportOptions& options) {
  ServeReport report;
  report.duration = run.duration;
  report.peak_in_flight = run.peak_in_flight;
  report.peak_tokens_per_s = peak_tokens_per_s(run.requests);
  report.cpu_share = run.duration > 0 ? run.cpu_seconds / run.duration : 0;
  std::map<std::string, std::vector<double>> ms;
  std::vector<double> delays, refusals;
  std::size_t good = 0, by_usage = 0;
  for (const SentRequest& request : run.requests) {
    const Completion& c = request.completion;
    const double queued = request.sent - request.due;
    delays.push_back(kMs * queued);
    if (!c.ok()) {
      count_failure(c, report);
      if (c.status >= 400) refusals.push_back(kMs * (request.ended - request.sent));
      continue;
    }
    ++report.completed;
    by_usage += c.completion_tokens.has_value();
    report.input_tokens += input_tokens_of(request, prompts);
    report.output_tokens += c.output_tokens();
    good += is_good(c, options.goodput);
    ms["ttft"].push_back(kMs * c.ttft);
    ms["e2el"].push_back(kMs * c.latency);
    if (const auto tpot = tpot_of(c)) ms["tpot"].push_back(kMs * *tpot);
    for (const double itl : c.itls) ms["itl"].push_back(kMs * itl);
    ms["client_queue_time"].push_back(kMs * queued);
    ms["e2el_including_client_queue"].push_back(kMs * (c.latency + queued));
  }
  report.tokens_from = by_usage == report.completed ? "usage" : by_usage == 0 ? "chunks" : "both";
  report.good_per_s = report.per_s(good);
  for (const std::string& metric : options.metrics)
    report.ms[metric] = distribution_of(std::move(ms[metric]), options.percentiles);
  if (!delays.empty()) report.max_send_delay_ms = std::ranges::max(delays);
  report.send_delay_ms = distribution_of(std::move(delays), {99});
  report.refusal_ms = distribution_of(std::move(refusals), {99});
  return report;
}

void print_serve_report(std::FILE* out, const ServeReport& r, const ReportOptions& options) {
  fmt::print(out, "{:=^50}\n", " Serving Benchmark Result ");
  print_line(out, "Successful requests", r.completed);
  print_line(out, "Failed requests", r.failed);
  print_line(out, "Benchmark duration (s)", r.duration);
  print_line(out, "Total input tokens", r.input_tokens);
  print_line(out, "Total generated tokens", r.output_tokens);
  print_line(out, "Generated tokens counted by", r.tokens_from);
  print_line(out, "Request throughput (req/s)", r.per_s(r.completed));
  if (options.goodput.asked()) print_line(out, "Request goodput (req/s)", r.good_per_s);
  print_line(out, "Output token throughput (tok/s)", r.per_s(r.output_tokens));
  print_line(out, "Peak output token throughput (tok/s)", r.peak_tokens_per_s);
  print_line(out, "Total token throughput (tok/s)", r.per_s(r.input_tokens + r.output_tokens));
  print_line(out, "Peak concurrent requests", r.peak_in_flight);
  for (const ReportMetric& metric : kReportMetrics)
    if (r.ms.contains(metric.key)) print_distribution(out, metric, r.ms.at(metric.key), options);
  fmt::print(out, "{:-^50}\n", "Load generator");
  print_line(out, "Median send delay (ms)", r.send_delay_ms.median);
  print_line(out, "P99 send delay (ms)", r.send_delay_ms.percentiles.front());
  print_line(out, "Max send delay (ms)", r.max_send_delay_ms);
  print_line(out, "CPU (% of a core)", 100 * r.cpu_share);
  if (r.failed > 0) {
    fmt::print(out, "{:-^50}\n", "Failures");
    print_line(out, "By status (0: no reply)", joined(r.failures));
    if (!r.retry_after.empty()) print_line(out, "Retry-After (s)", joined(r.retry_after));
    print_line(out, "Median time to refusal (ms)", r.refusal_ms.median);
    print_line(out, "P99 time to refusal (ms)", r.refusal_ms.percentiles.front());
    for (const auto& [error, count] : r.errors) fmt::print(out, "{:>6} x {}\n", count, error);
  }
  fmt::print(out, "{:=^50}\n", "");
  std::fflush(out);
}

nlohmann::json to_json(const ServeReport& r, const ReportOptions& options) {
  nlohmann::json out{{"duration", r.duration},
                     {"completed", r.completed},
                     {"failed", r.failed},
                     {"total_input_tokens", r.input_tokens},
                     {"total_output_tokens", r.output_tokens},
                     {"request_throughput", r.per_s(r.completed)},
                     {"request_goodput", options.goodput.asked() ? nlohmann::json(r.good_per_s) : nlohmann::json()},
                     {"output_throughput", r.per_s(r.output_tokens)},
                     {"total_token_throughput", r.per_s(r.input_tokens + r.output_tokens)},
                     {"max_output_tokens_per_s", r.peak_tokens_per_s},
                     {"max_concurrent_requests", r.peak_in_flight},
                     {"rtfx", 0.0},  // seconds of audio that went in, per second
                     {"output_tokens_from", r.tokens_from},
                     {"send_delay_ms",
                      {{"mean", r.send_delay_ms.mean},
                       {"median", r.send_delay_ms.median},
                       {"p99", r.send_delay_ms.percentiles.front()},
                       {"max", r.max_send_delay_ms}}},
                     {"generator_cpu_share", r.cpu_share},
                     {"failures_by_status", r.failures},
                     {"retry_after", r.retry_after},
                     {"refusal_ms", {{"median", r.refusal_ms.median}, {"p99", r.refusal_ms.percentiles.front()}}},
                     {"failures_by_error", r.errors}};
  for (const auto& [metric, d] : r.ms) {
    out[fmt::format("mean_{}_ms", metric)] = d.mean;
    out[fmt::format("median_{}_ms", metric)] = d.median;
    out[fmt::format("std_{}_ms", metric)] = d.std;
    for (std::size_t i = 0; i < d.percentiles.size(); ++i)
      out[fmt::format("p{}_{}_ms", percentile_name(options.percentiles[i]), metric)] = d.percentiles[i];
  }
  return out;
}

nlohmann::json requests_json(const LoadRun& run, const std::vector<WorkloadPrompt>& prompts, bool detailed) {
  nlohmann::json out;
  for (const char* key : {"latencies", "queue_times"}) out[key] = nlohmann::json::array();
  if (detailed)
    for (const char* key :
         {"input_lens", "output_lens", "ttfts", "itls", "start_times", "due_times", "generated_texts", "errors"})
      out[key] = nlohmann::json::array();
  for (const SentRequest& request : run.requests) {
    const Completion& c = request.completion;
    out["latencies"].push_back(c.latency);
    out["queue_times"].push_back(request.sent - request.due);
    if (!detailed) continue;
    out["input_lens"].push_back(input_tokens_of(request, prompts));
    out["output_lens"].push_back(c.ok() ? c.output_tokens() : 0);
    out["ttfts"].push_back(c.ttft);
    out["itls"].push_back(c.itls);
    out["start_times"].push_back(request.sent);
    out["due_times"].push_back(request.due);
    out["generated_texts"].push_back(c.text);
    out["errors"].push_back(c.error);
  }
  return out;
}

nlohmann::json rate_changes_json(const LoadRun& run, const std::vector<double>& rates) {
  nlohmann::json out = nlohmann::json::array();
  for (const RateChange& change : rate_changes(rates)) {
    // Of an interrupted run, some requests are missing.
    const auto sent = std::ranges::lower_bound(run.requests, change.request, {}, &SentRequest::prompt);
    if (sent == run.requests.end() || sent->prompt != change.request) continue;
    const auto at = run.start + std::chrono::microseconds(std::llround(1e6 * sent->due));
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
    const std::string time = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}",
                                         fmt::localtime(static_cast<std::time_t>(us / 1'000'000)), us % 1'000'000);
    out.push_back({{"rps", change.rps}, {"timestamp", time}});
  }
  return out;
}

}  // namespace foe
