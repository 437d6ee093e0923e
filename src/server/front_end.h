// `foe serve`: the process that clients talk to. It reads HTTP, text and JSON, keeps the journal of the requests in
// flight, and supervises the MPI job that computes. It is not an MPI rank, so it survives when a rank crashes.
#pragma once

#include <string>

#include "server/api/receipt.h"
#include "server/http/access.h"
#include "server/http/server.h"
#include "server/ranks/supervisor.h"

namespace foe {

struct ServeOptions {
  std::string model;                       // the model folder
  std::string model_name;                  // the model's name in the API
  std::string version;                     // what /version says
  std::string chat_template;               // a file; empty: the model's own template, if it has one
  std::string tool_call_parser = "auto";   // tool_syntax_for()
  std::string reasoning_parser = "auto";   // reasoning_syntax_for()
  std::string generation_config = "auto";  // load_generation_defaults()
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: any free port
  HttpLimits http;
  AccessOptions access;
  std::size_t max_queue = 256;             // the most choices in flight, running and waiting
  double answer_seconds = 3600;            // the longest time for an answer; 0: no limit
  bool open_objects = false;               // whether schemas' objects may have what they do not list (Constraint)
  int max_prompt_logprobs = kMaxLogprobs;  // the most tokens reported for a place in a prompt; -1: the whole vocabulary
  std::string kv_dtype;                    // of the ranks' KV cache, for metrics
  // How the ranks compute, for receipts, and what they send each other: only with f32 can others compute the same.
  ReceiptEngine engine;
  std::string wire = "f32";
  bool allow_routes = false;  // whether requests may say what they are routed by (foe_route)
  double drain_s = 10;        // the time that answers in flight get when the server is told to stop
  SupervisorOptions supervisor;
};

// Serves until SIGTERM, SIGINT or (unless under nohup) SIGHUP. Then it finishes the answers in flight, for at most
// drain_s, ends the ranks, and returns. A second signal ends everything at once. Throws Error if the model cannot be
// served or the port cannot be bound and, once all ranks' processes have ended, after a second signal or if the ranks
// keep crashing.
void serve(const ServeOptions& options);

}  // namespace foe
