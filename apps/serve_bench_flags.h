// The flags of `foe bench serve`, with the names of those of `vllm bench serve`.
#pragma once

#include <string>
#include <vector>

#include "flags.h"
#include "load/arrivals.h"
#include "load/http_client.h"
#include "load/load_generator.h"
#include "load/request_fields.h"
#include "load/serve_report.h"
#include "load/workload.h"

namespace foe {

// How results are saved.
struct ResultFlags {
  bool save = false, detailed = false, append = false;
  std::string folder, name, label;
  std::vector<std::string> metadata;

  bool any() const { return save || detailed || append; }
};

struct ServeBenchFlags {
  WorkloadOptions workload;
  LoadOptions load;
  ReportOptions report;
  RequestFields fields;
  ResultFlags result;
  // fields.model is the name in requests; `model` is the one in reports, and that in requests if there is no other.
  std::string base_url, host = "127.0.0.1", backend, endpoint, model, tokenizer, api_key;
  std::vector<std::string> headers;
  int port = 8000, warmups = 0;
  double ready_s = 0;
  std::vector<double> rates, gaps;
  double burstiness = 1;
  RampUp ramp;
  bool quiet = false, no_shuffle = false;
  std::vector<std::string> goodput;

  bool is_ramp() const { return !ramp.strategy.empty(); }
  // Whether a flag says when requests are sent, whatever a trace says.
  bool paced = false;
  HttpTarget target() const;
};

void add_serve_bench_flags(Command command, ServeBenchFlags& flags);
// Add only the flags of when requests are sent, or of what is reported.
void add_pace_flags(Command command, ServeBenchFlags& flags);
void add_report_flags(Command command, ServeBenchFlags& flags);
// Sets `rates` from the flags of when requests are sent.
void complete_rates(ServeBenchFlags& flags);
// Returns the rate at each request of a run at this one, and how it is called.
std::vector<double> rates_of(const ServeBenchFlags& flags, double rate, std::size_t prompts);
// Sets the flags whose values follow from others. Throws Error for flags that contradict each other.
void complete_flags(ServeBenchFlags& flags);

}  // namespace foe
