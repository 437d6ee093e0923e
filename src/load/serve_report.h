// What a load run comes to: the figures, the table and the JSON keys of `vllm bench serve`, and some of our own.
#pragma once

#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "load/load_generator.h"

namespace foe {

// Milliseconds that a good request takes at most; those that are not set do not matter.
struct Goodput {
  std::optional<double> ttft, tpot, e2el;
  bool asked() const { return ttft || tpot || e2el; }
};
// {"ttft:200", "tpot:50"}. Throws Error for anything else.
Goodput parse_goodput(const std::vector<std::string>& terms);

struct ReportOptions {
  std::vector<std::string> metrics{"ttft", "tpot", "itl", "e2el"};
  std::vector<double> percentiles{99};
  Goodput goodput;
};

// Of values in ascending order, linear between neighbours as NumPy's default is; 0 if there are none.
double percentile(const std::vector<double>& sorted, double percent);

struct Distribution {
  double mean = 0, median = 0, std = 0;  // std divides by n, as NumPy's does
  std::vector<double> percentiles;       // those of ReportOptions
};
// In any order.
Distribution distribution_of(std::vector<double> values, const std::vector<double>& percentiles);

struct ServeReport {
  std::size_t completed = 0, failed = 0;
  double duration = 0;
  std::int64_t input_tokens = 0, output_tokens = 0;  // of completed requests
  std::string tokens_from;  // "usage" of the streams, their "chunks", or "both", some this and some that
  std::size_t peak_in_flight = 0;
  double good_per_s = 0;                   // completed requests within the limits of the goodput
  std::map<std::string, Distribution> ms;  // by metric: ttft, tpot, itl, e2el
  Distribution send_delay_ms;              // how much later than it was due a request went
  double max_send_delay_ms = 0;
  Distribution refusal_ms;                      // from sending to the end of a reply with an error's status
  double cpu_share = 0;                         // of one core, that the generator took
  std::map<std::string, std::size_t> failures;  // by HTTP status, or "0": no reply, or a stream that went wrong is 200
  std::map<std::string, std::size_t> retry_after;  // values of that header
  std::map<std::string, std::size_t> errors;       // messages, of which 10 are kept

  double per_s(double n) const { return duration > 0 ? n / duration : 0; }
};

ServeReport report_serve(const LoadRun& run, const std::vector<Prompt>& prompts, const ReportOptions& options);

void print_serve_report(std::FILE* out, const ServeReport& report, const ReportOptions& options);

// vLLM's keys, without those that say what was asked for; and what each request did.
nlohmann::json to_json(const ServeReport& report, const ReportOptions& options);
nlohmann::json details_json(const LoadRun& run, const std::vector<Prompt>& prompts);

}  // namespace foe
