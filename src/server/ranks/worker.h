// Rank 0's side of the link to the front end (link.h).
#pragma once

#include <string>

#include "engine/engine.h"

namespace foe {

struct WorkerOptions {
  std::string socket_path;        // where the front end listens
  int max_batch_tokens = 0;       // the engine's, EngineOptions::max_batch_tokens
  int kv_tokens = 0;              // the engine's, EngineOptions::kv_tokens
  std::string identity = {};      // the digest of the model folder, for Ready
  RouteWriter* routes = nullptr;  // records what clients' requests are routed to; null: nothing does
  double hang_timeout_s = 10;     // the shortest silence after which the front end may count the ranks as lost
};

// Connects to the front end, sends Ready, and runs its requests until it sends Stop or is gone. Called on rank 0, while
// the other ranks are in Engine::follow(); the caller ends those. Throws Error if the socket does not answer or a
// message is invalid.
void serve_front_end(Engine& engine, const WorkerOptions& options);

// Returns how many positions the KV cache of a server has by default: enough for `sequences` whole contexts, but at
// most 4 GiB over all ranks, and at least one context.
int default_kv_tokens(const ModelConfig& config, KvType type, int sequences);

}  // namespace foe
