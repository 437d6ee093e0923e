// What a client asks of the engine, and what comes back: token ids only, text is the front end's business.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace foe {

struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy, the most likely token, the lowest id among equals
  float top_p = 1.0f;        // in (0, 1]
  int top_k = 0;             // 0: all
  float min_p = 0.0f;        // in [0, 1]: drops tokens less likely than this share of the most likely one
  std::uint64_t seed = 0;    // the n-th output token is drawn with random number (seed, n), whatever else runs
};

struct Request {
  std::int64_t id = 0;
  std::vector<std::int32_t> prompt;    // at least one token
  std::vector<std::int32_t> output;    // already generated, before a restart: continues behind it
  int max_tokens = 16;                 // output tokens in all, those above included
  std::vector<std::int32_t> stop_ids;  // tokens that end the output (and are part of it)
  SamplingParams sampling;
};

enum class FinishReason { kStop, kLength };

// One more output token of a request.
struct TokenEvent {
  std::int64_t id = 0;
  std::int32_t token = 0;
  std::optional<FinishReason> finish;  // set on the last one
};

}  // namespace foe
