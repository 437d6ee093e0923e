// The JSON that the live view on the server's page reads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/model_config.h"
#include "engine/engine_stats.h"
#include "server/metrics/metrics.h"

namespace foe {

// Counts the output tokens of each of the last seconds, so that the page's chart shows them as soon as it is opened.
class TokensBySecond {
 public:
  using Counts = std::array<std::int64_t, 120>;
  // Counts tokens that came in this second, or in another one of the same clock.
  void add(std::int64_t tokens, std::int64_t second = now());
  // Returns the counts of the seconds before this one, the oldest first.
  Counts last(std::int64_t second = now()) const;

 private:
  static std::int64_t now();

  static constexpr std::size_t kPlaces = std::tuple_size_v<Counts> + 1;  // with the second that has not ended
  std::array<std::int64_t, kPlaces> tokens_{}, second_{};                // a count, and of which second it is
};

struct LiveState {
  std::string model, plan;
  int ranks = 0;
  int context = 0;
  bool up = false;
  bool chat = false;       // whether the model has a chat template
  bool needs_key = false;  // whether requests need one
  int restarts = 0;
  std::size_t in_flight = 0;
  RecentLatencies latencies;
  EngineStats stats;
  TokensBySecond::Counts tokens_by_second{};
};

// A job says what its experts have run after its first step. Until then it is nothing: returns the stats with a row of
// zeros for each layer.
EngineStats with_all_layers(EngineStats stats, const ModelConfig& config);

std::string live_body(const LiveState& state);

// The page itself as HTML, made from the files in page/.
extern const char* const kPage;

}  // namespace foe
