// Evaluates a load run. The figures, the table and the JSON keys are those of `vllm bench serve` and some of our own.
#pragma once

#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "load/load_generator.h"

namespace foe {

// The most milliseconds that a good request may take. Limits that are not set do not apply.
struct Goodput {
  std::optional<double> ttft, tpot, e2el;
  bool asked() const { return ttft || tpot || e2el; }
};
// Reads {"ttft:200", "tpot:50"}. Throws Error for anything else.
Goodput parse_goodput(const std::vector<std::string>& terms);

// The latencies that a report may have.
struct ReportMetric {
  const char* key;
  const char* name;
  const char* title;
};
inline constexpr ReportMetric kReportMetrics[] = {
    {"ttft", "TTFT", "Time to First Token"},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
    {"itl", "ITL", "Inter-token Latency"},
    {"e2el", "E2EL", "End-to-end Latency"},
    {"client_queue_time", "Client Queue Time", "Client-side Queueing"},
    {"e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"}};

struct ReportOptions {
  std::vector<std::string> metrics{"ttft", "tpot", "itl", "e2el"};  // of kReportMetrics
  std::vector<double> percentiles{99};
  Goodput goodput = {};
};

// Returns a percentile of ascending values, interpolated linearly as is NumPy's default; 0 if there are none.
double percentile(const std::vector<double>& sorted, double percent);

struct Distribution {
  double mean = 0, median = 0, std = 0;  // std divides by n, as NumPy's does
  std::vector<double> percentiles;       // in the order of ReportOptions
};
// Returns mean, median, standard deviation and percentiles of values in any order.
Distribution distribution_of(std::vector<double> values, const std::vector<double>& percentiles);

struct ServeReport {
  std::size_t completed = 0, failed = 0;
  double duration = 0;
  std::int64_t input_tokens = 0, output_tokens = 0;  // of completed requests
  std::string tokens_from;  // how outputs were counted: by "usage", by "chunks", or "both" (some so and some so)
  std::size_t peak_in_flight = 0;
  double peak_tokens_per_s = 0;            // events with tokens in the fullest second, of completed requests
  double good_per_s = 0;                   // completed requests per second within all limits of the goodput
  std::map<std::string, Distribution> ms;  // by the key of a metric
  Distribution send_delay_ms;              // how much later than due requests were sent
  double max_send_delay_ms = 0;
  Distribution refusal_ms;                         // the time until replies with an error status were complete
  double cpu_share = 0;                            // the share of one core that the generator took
  std::map<std::string, std::size_t> failures;     // by HTTP status; "0": no reply; "200": a broken stream
  std::map<std::string, std::size_t> retry_after;  // values of the header Retry-After
  std::map<std::string, std::size_t> errors;       // at most 10 different messages

  double per_s(double n) const { return duration > 0 ? n / duration : 0; }
};

ServeReport report_serve(const LoadRun& run, const std::vector<WorkloadPrompt>& prompts, const ReportOptions& options);

void print_serve_report(std::FILE* out, const ServeReport& report, const ReportOptions& options);

// Return the report as JSON with vLLM's keys (without those that repeat the options), and lists with an entry for each
// request: few, as vLLM always has them, or with `detailed` all.
nlohmann::json to_json(const ServeReport& report, const ReportOptions& options);
nlohmann::json requests_json(const LoadRun& run, const std::vector<WorkloadPrompt>& prompts, bool detailed);
// Returns vLLM's `rps_change_events` of a run whose requests were sent at these growing rates.
nlohmann::json rate_changes_json(const LoadRun& run, const std::vector<double>& rates);

}  // namespace foe
