// `foe serve`: the process that clients talk to. It reads HTTP, text and JSON, keeps the journal of what is in flight,
// and supervises the MPI job that computes. It is no MPI rank, so no rank can take it down.
#pragma once

#include <string>

#include "server/http/access.h"
#include "server/http/server.h"
#include "server/ranks/supervisor.h"

namespace foe {

struct ServeOptions {
  std::string model;          // its folder
  std::string model_name;     // as clients know it
  std::string chat_template;  // a file; empty: the model's own, if it has one
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: a free one
  HttpLimits http;
  AccessOptions access;
  std::size_t max_queue = 256;   // choices in flight, running and waiting
  double answer_seconds = 3600;  // the longest time for an answer; 0: any
  double drain_s = 10;           // for what is in flight when the server is told to stop
  SupervisorOptions supervisor;
};

// Serves until SIGTERM, SIGINT or (not under nohup) SIGHUP: then finishes what is in flight, for at most drain_s, and
// ends the ranks. A second signal ends all at once. Throws Error after a second signal or where the ranks keep dying,
// when no process is left, and for a model that cannot be served or a port that cannot be had.
void serve(const ServeOptions& options);

}  // namespace foe
