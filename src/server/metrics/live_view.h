// The JSON that the live view on the server's page reads.
#pragma once

#include <cstddef>
#include <string>

#include "engine/engine_stats.h"
#include "server/metrics/metrics.h"

namespace foe {

struct LiveState {
  std::string model, plan;
  int ranks = 0;
  int context = 0;
  bool up = false;
  bool chat = false;  // whether the model has a chat template
  int restarts = 0;
  std::size_t in_flight = 0;
  RecentLatencies latencies;
  EngineStats stats;
};

std::string live_body(const LiveState& state);

// The page itself as HTML, made from page.html.
extern const char* const kPage;

}  // namespace foe
