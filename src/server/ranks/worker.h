// Rank 0's end of the link to the front end.
#pragma once

#include <string>

#include "engine/engine.h"

namespace foe {

struct WorkerOptions {
  std::string socket_path;     // where the front end listens
  int max_batch_tokens = 0;    // as the engine's
  int kv_tokens = 0;           // as the engine's
  std::string identity = {};   // of the model folder, for Ready
  double hang_timeout_s = 10;  // the shortest silence after which the front end may take the ranks for dead
};

// Connects to the front end, says Ready, and serves what it asks for until it says Stop or is gone. The other ranks are
// in Engine::follow() meanwhile; ending them is the caller's business. Throws Error for a socket that does not answer
// or a message that is none.
void serve_front_end(Engine& engine, const WorkerOptions& options);

// How many positions the KV cache of a server gets where nobody said: room for `sequences` whole contexts, within 4 GiB
// over all ranks, but for one context at least.
int default_kv_tokens(const ModelConfig& config, KvType type, int sequences);

}  // namespace foe
