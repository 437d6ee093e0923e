// Sends a workload to a server, open loop: when each request goes was fixed before the run, and no answer moves it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "load/completion_stream.h"
#include "load/http_client.h"
#include "load/workload.h"

namespace foe {

struct LoadOptions {
  std::string endpoint = "/v1/completions";
  bool chat = false;              // what the endpoint takes
  std::string headers = "";       // each ending in \r\n
  std::string fields = "";        // of each request's JSON object, beside prompt and max_tokens: an object's text
  int max_concurrency = 0;        // 0: no limit; with one, requests may have to wait for others
  double timeout_s = 3600;        // of one request
  double progress_every_s = 0.5;  // calls of `progress`; 0: none
};

struct SentRequest {
  std::size_t prompt = 0;               // of the workload
  double due = 0, sent = 0, ended = 0;  // in seconds from the start
  Completion completion;
};

struct LoadProgress {
  std::size_t sent = 0, in_flight = 0, ended = 0, failed = 0;
  double seconds = 0;
};

struct LoadRun {
  std::vector<SentRequest> requests;  // those that ended, in the order they were sent
  double duration = 0;                // from the start to the last end
  double cpu_seconds = 0;             // that the generator took
  std::size_t peak_in_flight = 0;
  bool interrupted = false;  // by SIGINT, SIGTERM or SIGHUP: what was in flight then, or not sent, is not in `requests`
};

// The body of a request.
std::string request_body(const Prompt& prompt, const LoadOptions& options);

// Runs on this thread until all requests have ended, or a signal comes. `times`, ascending, has when to send each
// prompt.
LoadRun run_load(const HttpTarget& target, const std::vector<Prompt>& prompts, const std::vector<double>& times,
                 const LoadOptions& options, const std::function<void(const LoadProgress&)>& progress);

}  // namespace foe
