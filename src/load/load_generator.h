// Sends a workload to any OpenAI-compatible server, as an open loop: the time of each request is fixed before the run
// and does not depend on answers.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "load/completion_stream.h"
#include "load/http_client.h"
#include "load/workload.h"

namespace foe {

struct LoadOptions {
  std::string endpoint = "/v1/completions";
  bool chat = false;              // whether the endpoint takes chats instead of prompts
  std::string headers = "";       // each ending in \r\n
  std::string fields = "";        // a JSON object whose members are added to that of each request
  bool length_in_fields = false;  // whether they say how long answers may be, instead of the workload
  std::string id_prefix = "";     // of a header X-Request-Id that each request has; empty: none has it
  bool keep_texts = false;        // whether the text of each answer is kept
  int max_concurrency = 0;        // 0: no limit; with a limit, requests may have to wait for others
  double timeout_s = 3600;        // for one request
  double progress_every_s = 0.5;  // how often `progress` is called; 0: never
};

struct SentRequest {
  std::size_t prompt = 0;               // index in the workload
  double due = 0, sent = 0, ended = 0;  // in seconds since the start of the run
  Completion completion;
};

struct LoadProgress {
  std::size_t sent = 0, in_flight = 0, ended = 0, failed = 0;
  double seconds = 0;
};

struct LoadRun {
  std::chrono::system_clock::time_point start;
  std::vector<SentRequest> requests;  // the requests that have ended, in the order in which they were sent
  double duration = 0;                // from the start to the end of the last request
  double cpu_seconds = 0;             // the processor time of the generator
  std::size_t peak_in_flight = 0;
  bool interrupted = false;  // by SIGINT, SIGTERM or SIGHUP: then `requests` lacks those that had not ended
};

// Return the body of a request, and the headers of the request with this prompt.
std::string request_body(const WorkloadPrompt& prompt, const LoadOptions& options);
std::string request_headers(std::size_t i, const LoadOptions& options);

// Runs on this thread until all requests have ended or a signal comes. `times` says when to send each prompt, in
// ascending seconds since the start. Throws Error if the host is unknown.
LoadRun run_load(const HttpTarget& target, const std::vector<WorkloadPrompt>& prompts, const std::vector<double>& times,
                 const LoadOptions& options, const std::function<void(const LoadProgress&)>& progress);

}  // namespace foe
